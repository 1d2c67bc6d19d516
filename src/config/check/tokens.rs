//! Bearer tokens: files that are there, hold one, and are nobody else's to read.
//!
//! Only digests leave this file. Invariant: no problem shows what a file holds.

use super::{Found, path};
use crate::config::leaf::{FilePath, Name};
use crate::config::plan::BearerToken;
use crate::config::problem::{Level, Problem};
use crate::config::raw;
use crate::config::read::{At, Field, Named};
use aws_lc_rs::digest::{SHA256, digest};
use std::os::unix::fs::MetadataExt;

/// The shortest token: 32 characters cannot be guessed, even of hexadecimal.
const LEN_MIN: usize = 32;
/// The longest: more is another file.
const LEN_MAX: usize = 512;
/// What a digest begins with.
const DIGEST: &str = "sha256:";
/// Modes that let others read.
const OTHERS: u32 = 0o077;

const REMEDY: &str = "make one by `openssl rand -hex 32`; Central may have its digest instead, `sha256:` and 64 digits";

/// `[tokens]`, each known by its digest.
pub(super) fn read(field: &Field<Named<Name, raw::Token>>, found: &mut Found<'_>) -> Vec<BearerToken> {
    let mut tokens: Vec<BearerToken> = Vec::new();
    for (name, token) in field.get().map_or(&[][..], |named| &named.0) {
        let Some(file) = token.value.file.at() else { continue };
        let Some(digest) = known(file, found) else { continue };
        if let Some(twin) = tokens.iter().find(|other| other.digest == digest) {
            let wrong = format!("this is the same token as that of `{}`", twin.name);
            found.report(
                Problem::at(file.place, wrong).help("give each bearer one of its own, so that one can be withdrawn"),
            );
        }
        let may_write = token.value.write.get() == Some(&true);
        tokens.push(BearerToken { name: name.value.0.clone(), digest, may_write });
    }
    tokens
}

/// The digest of the token in a file; `None` after a report.
fn known(file: &At<FilePath>, found: &mut Found<'_>) -> Option<[u8; 32]> {
    let shown = file.value.0.display();
    let text = match std::fs::read_to_string(path(file)) {
        Ok(text) => text,
        Err(error) => {
            let problem = Problem::at(file.place, format!("`{shown}` cannot be read: {error}"));
            found.report(problem.help("relative paths count from the folder of the file that says them"));
            return None;
        }
    };
    let digest = digest_of(text.trim_end());
    if digest.is_none() {
        found.report(
            Problem::at(file.place, format!("`{shown}` holds no token: 32 to 512 letters, digits and -._~+/="))
                .help(REMEDY),
        );
    }
    if !text.starts_with(DIGEST) && std::fs::metadata(path(file)).is_ok_and(|meta| meta.mode() & OTHERS != 0) {
        let problem = Problem::at(file.place, "others than its owner can read this token").level(Level::Warning);
        found.report(
            problem.help(format!("`chmod 600 {shown}`, or keep only its digest there: `sha256:` and 64 digits")),
        );
    }
    digest
}

/// SHA-256 of the token that a file holds, or the digest that it holds; `None` for neither.
fn digest_of(text: &str) -> Option<[u8; 32]> {
    match text.strip_prefix(DIGEST) {
        Some(hex) => from_hex(hex),
        None if is_token(text) => digest(&SHA256, text.as_bytes()).as_ref().try_into().ok(),
        None => None,
    }
}

/// `b64token` of RFC 6750 section 2.1, of a sensible length.
fn is_token(text: &str) -> bool {
    let fits = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~+/=".contains(&octet);
    (LEN_MIN..=LEN_MAX).contains(&text.len()) && text.bytes().all(fits)
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 2 * digest.len() || !text.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        return None;
    }
    for (octet, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *octet = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_and_its_digest_are_the_same() {
        let token = "0123456789abcdef0123456789abcdef";
        let hex = "sha256:93add2ed3d4e78d93e97d8d46cf2f26bea5c5f2c9df43a4d4a0e8e3b5cc2c4dd";
        assert_eq!(digest_of(token).map(|digest| digest.len()), Some(32));
        assert!(digest_of(hex).is_some());
        let own: String = digest_of(token).unwrap().iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(digest_of(&format!("sha256:{own}")), digest_of(token));
        for wrong in
            ["", "short", &hex[..70], "sha256:zz", &format!("{token} x"), &"a".repeat(513), &hex.replace('9', "+")]
        {
            assert_eq!(digest_of(wrong), None, "{wrong}");
        }
    }
}
