//! A Central that was restored from a copy asks every edge for its ledger, and answers nothing else (HOMES 2.2, Restore).

use super::super::client::content;
use super::{End, Follower, call, connect};
use crate::home::cursor::FeedId;
use http::{HeaderMap, Method};
use std::time::Duration;

/// Between two looks at a Central that waits for others.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a report may take: a ledger of 100 M users is some 600 MB.
const REPORT_MAX: Duration = Duration::from_secs(600);
/// The longest answer that is read.
const ANSWER_MAX: usize = 64 << 10;

/// What Central asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    term: u64,
    /// This wait for reports: the term, and a name of the process that waits.
    round: String,
    feed: FeedId,
}

/// Whether an answer asks for a report.
pub(super) fn asked(fields: &HeaderMap) -> Option<Call> {
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
    let round = text("coordinator-recover")?;
    let term = round.split('.').next()?.parse().ok()?;
    Some(Call { term, round: round.to_owned(), feed: text("feed-id")?.parse().ok()? })
}

impl Follower {
    /// Reports, once in each round. From then on no Central of an older term is obeyed.
    pub(super) async fn report(&mut self, asked: Call) -> End {
        let Call { term, round, feed } = asked;
        if self.reported.as_ref() == Some(&round) {
            return End::Later("Central was restored and waits for the reports of other edges".to_owned(), PATIENCE);
        }
        let Some(applier) = &self.applier else { return End::Fatal("the homes' writer is gone".to_owned()) };
        let obeyed = applier.homes().obeyed();
        if term < obeyed {
            return End::Broken(format!("this Central was superseded: we obey term {obeyed} already"));
        }
        if applier.cursor().feed.is_some_and(|ours| ours != feed) {
            return End::Alarm(
                super::Alarm::OtherFeed,
                "the restored Central's history is another one than ours".to_owned(),
            );
        }
        let report = match self.work(move |applier| applier.report(feed, term)).await {
            Ok(report) => report,
            Err(end) => return end,
        };
        self.status.obey(term);
        let target = self.target.load().clone();
        let mut path = format!("/feed/v1/recover?edge={}&boot={}", target.edge, report.boot);
        if let Some(old) = report.replaces {
            path.push_str(&format!("&replaces={old}"));
        }
        if !report.is_complete {
            path.push_str("&incomplete=1");
        }
        let mut sent = call(path, &target.edge);
        sent.method = Method::POST;
        sent.content = report.octets.into();
        sent.patience = Some(REPORT_MAX);
        let answer = match connect(&target, &self.status).await {
            Ok(mut line) => line.send(sent).await,
            Err(why) => Err(why),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => return End::Broken(why),
        };
        let status = answer.status().as_u16();
        let text = content(answer.into_body(), ANSWER_MAX).await.unwrap_or_default();
        if status != 200 {
            let text = String::from_utf8_lossy(&text).into_owned();
            return End::Later(format!("Central did not take our report: {status} {text}"), PATIENCE);
        }
        tracing::warn!(term, complete = report.is_complete, "our ledger was reported to a restored Central");
        self.reported = Some(round);
        End::Later("Central was restored, and has our report".to_owned(), Duration::ZERO)
    }
}
