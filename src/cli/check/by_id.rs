//! Whether a directory finds users and groups by their ids, of whichever API it speaks.

use super::report::Report;
use crate::directory::{Id, Kind, NOBODY};
use crate::source::{Answer, Directory};

/// Checks GET by id, because a 404 proves a removal.
pub(super) async fn check_get<D: Directory>(directory: &D, kind: Kind, listed: &Id, report: &mut Report) {
    const ABSENCE: &str =
        "→ [account.profile] removal_proof = \"absence\" accepts absence from 3 complete walks as proof";
    let list = kind.endpoint();
    match directory.get(kind, listed).await {
        Answer::Found(_) => {}
        Answer::NotFound | Answer::NotOffered | Answer::Forbidden => {
            let text = format!("{list} are not found by id: absence from 3 complete walks proves a removal");
            return report.note("get", &text);
        }
        Answer::Unproven(said) => {
            let text = format!(
                "{list}: GET by id gives no usable answer ({said}): missing ones stay, see removals_suppressed; {ABSENCE}"
            );
            return report.note("get", &text);
        }
    }
    match directory.get(kind, &NOBODY.into()).await {
        Answer::NotFound => {
            report.ok("get", &format!("{list} are found by id, others are not: removals can be proven"))
        }
        answer => {
            let said = match answer {
                Answer::Unproven(said) => said,
                Answer::NotOffered | Answer::Forbidden => "a refusal".to_owned(),
                _ => "an answer".to_owned(),
            };
            let text = format!(
                "{list}: an id that does not exist gets {said}, not 404: missing ones stay, see removals_suppressed; \
                 {ABSENCE}"
            );
            report.note("get", &text)
        }
    }
}
