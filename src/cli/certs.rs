//! `coordinator certs`: a CA and all certificates of a first deployment, as files.
//!
//! Owns the folder's layout (`ca.pem`, `ca.key`, `<name>.pem`, `<name>.key`) and refuses to know X.509, which
//! `tls/issue` does. Invariant: no file that exists is ever written to, and no key is ever readable by others, not even
//! for a moment: a file appears whole under its name (temporary file, mode, fsync, hard link) or not at all.

use crate::tls::issue::{self, IssueError, Issuer, Party};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The deployment's name where none is given; the configuration's default is the same.
const DEPLOYMENT: &str = "coordinator";

/// Names that would collide with files or parties of their own.
const RESERVED: [&str; 3] = ["ca", "operator", "app"];

/// Make a CA and the certificates of a deployment
///
/// Nothing that exists is overwritten: run it again with a new edge's name to add that edge. To renew a certificate,
/// delete its .pem (the key may stay) and run it again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for the files; made if absent, readable by its owner only
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Name of the whole system, as `deployment` in the configuration; an existing CA remembers it [default: coordinator]
    #[arg(long, value_name = "NAME")]
    pub deployment: Option<String>,
    /// Host names and addresses under which others reach a place, such as fr=fr.edge.example.com,10.0.0.3
    #[arg(long, value_name = "NAME=HOST,IP...", value_parser = hosts_of)]
    pub host: Vec<(String, Vec<String>)>,
    /// How long the certificates hold; the CA holds for ten years
    #[arg(long, value_name = "N", default_value_t = issue::DAYS)]
    pub days: u32,
    /// The places: `central`, and the name of each edge
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// What was made and what was there already; printed for the operator.
#[derive(Debug, Default)]
pub struct Made {
    /// New files, in the order they were written.
    pub new: Vec<PathBuf>,
    /// Certificates that were there and were left as they are.
    pub kept: Vec<PathBuf>,
    /// The deployment's name.
    pub deployment: String,
}

/// Why the command stopped.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// The arguments contradict themselves or what is in the folder: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// A file could not be read or written: exit code 1.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificate could not be made: exit code 2, as names and hosts come from the arguments.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

/// Runs the command: files in `--out`, what was done on stdout.
pub fn run(args: &Args) -> ExitCode {
    match make(args) {
        Ok(made) => {
            print!("{}", made.report(args));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, CertsError::File { .. }) { 1 } else { 2 })
        }
    }
}

/// Makes what is missing in the folder. Errors leave files that are whole; running again goes on from there.
pub fn make(args: &Args) -> Result<Made, CertsError> {
    let hosts = check(args)?;
    DirBuilder::new().recursive(true).mode(0o700).create(&args.out).map_err(|error| at(&args.out, error))?;
    let mut made = Made::default();
    let issuer = authority(args, &mut made)?.holding(args.days)?;
    made.deployment = issuer.deployment().to_owned();
    for name in &args.names {
        let party = if name == "central" { Party::Central } else { Party::Edge(name) };
        let hosts = hosts.get(name.as_str()).map_or(&[][..], Vec::as_slice);
        certificate(&args.out, name, party, hosts, &issuer, &mut made)?;
    }
    certificate(&args.out, "operator", Party::Operator("admin"), &[], &issuer, &mut made)?;
    certificate(&args.out, "app", Party::App("app"), &[], &issuer, &mut made)?;
    Ok(made)
}

/// Refuses what would fail half-way; gives the hosts by name.
fn check(args: &Args) -> Result<BTreeMap<&str, Vec<String>>, CertsError> {
    for name in &args.names {
        issue::check_name(name, "an edge")?;
        if RESERVED.contains(&name.as_str()) {
            return Err(CertsError::Usage(format!("`{name}` cannot be an edge: {name}.pem has a meaning of its own")));
        }
    }
    let mut hosts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, list) in &args.host {
        if !args.names.contains(name) {
            return Err(CertsError::Usage(format!("--host names `{name}`, which is not among the names to make")));
        }
        hosts.entry(name).or_default().extend(list.iter().cloned());
    }
    Ok(hosts)
}

/// The CA of the folder, made if there is none.
fn authority(args: &Args, made: &mut Made) -> Result<Issuer, CertsError> {
    let (cert, key) = (args.out.join("ca.pem"), args.out.join("ca.key"));
    match (read(&cert)?, read(&key)?) {
        (Some(cert_pem), Some(key_pem)) => {
            let issuer = Issuer::load(&cert_pem, &key_pem)?;
            if let Some(asked) = args.deployment.as_deref().filter(|asked| *asked != issuer.deployment()) {
                return Err(CertsError::Usage(format!(
                    "{} is the CA of deployment `{}`, not of `{asked}`: choose another folder",
                    cert.display(),
                    issuer.deployment()
                )));
            }
            made.kept.push(cert);
            Ok(issuer)
        }
        (None, None) => {
            let issuer = Issuer::new(args.deployment.as_deref().unwrap_or(DEPLOYMENT))?;
            write_new(&key, &issuer.ca_key_pem(), 0o600, made)?;
            write_new(&cert, issuer.ca_pem(), 0o644, made)?;
            Ok(issuer)
        }
        (Some(_), None) => Err(CertsError::Usage(format!(
            "{} is there without its key: bring {} to add certificates, or choose another folder",
            cert.display(),
            key.display()
        ))),
        (None, Some(_)) => Err(CertsError::Usage(format!(
            "{} is there without its certificate: bring {}, or move the key away to begin anew",
            key.display(),
            cert.display()
        ))),
    }
}

/// One party's pair: kept if there, renewed if only its key is there, else made.
fn certificate(
    folder: &Path,
    file: &str,
    party: Party<'_>,
    hosts: &[String],
    issuer: &Issuer,
    made: &mut Made,
) -> Result<(), CertsError> {
    let (cert, key) = (folder.join(format!("{file}.pem")), folder.join(format!("{file}.key")));
    match (cert.exists(), read(&key)?) {
        (true, Some(_)) => {
            made.kept.push(cert);
            Ok(())
        }
        (true, None) => Err(CertsError::Usage(format!(
            "{} is there without its key: bring {}, or delete the certificate to make both anew",
            cert.display(),
            key.display()
        ))),
        (false, Some(key_pem)) => {
            let issued = issuer.renew(party, hosts, &key_pem)?;
            write_new(&cert, &issued.chain_pem, 0o644, made)
        }
        (false, None) => {
            let issued = issuer.issue(party, hosts)?;
            write_new(&key, &issued.key_pem, 0o600, made)?;
            write_new(&cert, &issued.chain_pem, 0o644, made)
        }
    }
}

/// Writes a file that must not exist yet, whole or not at all.
fn write_new(path: &Path, text: &str, mode: u32, made: &mut Made) -> Result<(), CertsError> {
    let unfinished = path.with_added_extension("new");
    let written = fill(&unfinished, text, mode).and_then(|()| fs::hard_link(&unfinished, path));
    // The link is what counts; a left-over temporary file is harmless and is taken away by the next run.
    let _ = fs::remove_file(&unfinished);
    written.map_err(|error| at(path, error))?;
    sync_folder(path).map_err(|error| at(path, error))?;
    made.new.push(path.to_owned());
    Ok(())
}

fn fill(unfinished: &Path, text: &str, mode: u32) -> io::Result<()> {
    // What a killed run left behind; never a finished file, those have another name.
    let _ = fs::remove_file(unfinished);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// A file's text, or `None` if there is no such file.
fn read(path: &Path) -> Result<Option<String>, CertsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path, error)),
    }
}

fn at(path: &Path, source: io::Error) -> CertsError {
    CertsError::File { path: path.to_owned(), source }
}

/// Reads `fr=fr.edge.example.com,10.0.0.3`.
fn hosts_of(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, list) =
        text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`; write fr=fr.edge.example.com,10.0.0.3"))?;
    let hosts: Vec<String> = list.split(',').map(|host| host.trim().to_owned()).collect();
    if hosts.iter().any(String::is_empty) {
        return Err(format!("`{text}` names an empty host"));
    }
    Ok((name.trim().to_owned(), hosts))
}

impl Made {
    /// What the operator reads: what was made, what was kept, what to do next.
    pub fn report(&self, args: &Args) -> String {
        let mut text = format!("deployment {}\n", self.deployment);
        for path in &self.new {
            text.push_str(&format!("  made {}\n", path.display()));
        }
        for path in &self.kept {
            text.push_str(&format!("  kept {}\n", path.display()));
        }
        if self.new.is_empty() {
            text.push_str(
                "Everything was there already; to renew a certificate, delete its .pem and run this again.\n",
            );
            return text;
        }
        let edge = args.names.iter().find(|name| *name != "central").map_or("central", String::as_str);
        // Relative paths in a configuration count from its own folder, not from here.
        let folder = std::path::absolute(&args.out).unwrap_or_else(|_| args.out.clone());
        let folder = folder.display();
        text.push_str(&format!(
            "The new certificates hold for {} days.\n\
             Next: copy ca.pem and a place's own .pem and .key to that place (ca.key stays here), and write there:\n\
             \n  [peer]\n  chain = \"{folder}/{edge}.pem\"\n  key = \"{folder}/{edge}.key\"\n  ca = \"{folder}/ca.pem\"\n",
            args.days
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::os::unix::fs::PermissionsExt;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(out: &Path, words: &[&str]) -> Args {
        let line = ["certs", "--out", out.to_str().unwrap()].into_iter().chain(words.iter().copied());
        Line::try_parse_from(line).unwrap().args
    }

    fn listing(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_first_deployment_is_complete_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("deep/certs");
        let made = make(&args(&out, &["--deployment", "shop", "central", "fr", "de"])).unwrap();
        let all = ["app", "ca", "central", "de", "fr", "operator"];
        let expected: Vec<String> =
            all.iter().flat_map(|name| [format!("{name}.key"), format!("{name}.pem")]).collect();
        assert_eq!(listing(&out), expected);
        assert_eq!((made.new.len(), made.kept.len()), (12, 0));
        assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o700);
        for name in all {
            let mode = fs::metadata(out.join(format!("{name}.key"))).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}.key");
        }
    }

    #[test]
    fn a_second_run_adds_an_edge_and_touches_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        make(&args(folder.path(), &["--deployment", "shop", "central", "fr"])).unwrap();
        let before = fs::read(folder.path().join("fr.pem")).unwrap();
        let made = make(&args(folder.path(), &["central", "fr", "us"])).unwrap();
        assert_eq!(made.deployment, "shop");
        assert_eq!(made.new, [folder.path().join("us.key"), folder.path().join("us.pem")]);
        assert_eq!(fs::read(folder.path().join("fr.pem")).unwrap(), before);
    }

    #[test]
    fn a_deleted_certificate_is_renewed_under_its_key() {
        let folder = tempfile::tempdir().unwrap();
        make(&args(folder.path(), &["fr"])).unwrap();
        let key = fs::read(folder.path().join("fr.key")).unwrap();
        fs::remove_file(folder.path().join("fr.pem")).unwrap();
        let made = make(&args(folder.path(), &["fr"])).unwrap();
        assert_eq!(made.new, [folder.path().join("fr.pem")]);
        assert_eq!(fs::read(folder.path().join("fr.key")).unwrap(), key);
    }

    #[test]
    fn what_contradicts_itself_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("none");
        for (words, says) in [
            (vec!["ca"], "meaning of its own"),
            (vec!["operator"], "meaning of its own"),
            (vec!["FR"], "cannot be the name of an edge"),
            (vec!["--host", "de=1.2.3.4", "fr"], "not among the names"),
        ] {
            let error = make(&args(&out, &words)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(!out.exists());
    }

    #[test]
    fn half_a_pair_and_another_deployment_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        make(&args(out, &["--deployment", "shop", "fr"])).unwrap();
        let other = make(&args(out, &["--deployment", "bank", "fr"])).unwrap_err().to_string();
        assert!(other.contains("`shop`") && other.contains("`bank`"), "{other}");
        fs::remove_file(out.join("fr.key")).unwrap();
        assert!(make(&args(out, &["fr"])).unwrap_err().to_string().contains("fr.key"));
        fs::remove_file(out.join("ca.key")).unwrap();
        assert!(make(&args(out, &["fr"])).unwrap_err().to_string().contains("ca.key"));
    }

    #[test]
    fn hosts_are_read() {
        assert_eq!(hosts_of("fr=a.b,::1"), Ok(("fr".to_owned(), vec!["a.b".to_owned(), "::1".to_owned()])));
        for text in ["fr", "fr=", "fr=a,,b"] {
            assert!(hosts_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_existing_file_is_never_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.key");
        fs::write(&path, "mine").unwrap();
        let error = write_new(&path, "theirs", 0o600, &mut Made::default()).unwrap_err();
        assert!(matches!(error, CertsError::File { source, .. } if source.kind() == io::ErrorKind::AlreadyExists));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(listing(folder.path()), ["x.key"]);
    }
}
