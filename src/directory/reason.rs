//! Why a sync failed, is held, or repairs: the published field `reason_code`, in one place.
//!
//! `docs/reasons.md` is generated from [`ReasonCode::ALL`].

use std::fmt;

use super::problem::Problem;

/// The code of a reason, for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReasonCode {
    Unreachable,
    NotConnectable,
    Unavailable,
    HttpStatus,
    Redirected,
    CredentialsRefused,
    CredentialUnreadable,
    NotATokenResponse,
    NotAListResponse,
    NotAResource,
    BodyTooLarge,
    PageSizeRefused,
    PagingIgnored,
    PagingEndless,
    CursorRefused,
    StalePage,
    TooManyRows,
    TooManyPages,
    TooManyPrincipals,
    MemoryBudget,
    SyncTimeout,
    WalkIncomplete,
    ListIncomplete,
    FilterIgnored,
    MassChange,
    Repair,
    CommitAborted,
    EncodingFailed,
    /// A code that another version of scimtail recorded.
    Other(String),
}

/// What ends the condition that a reason names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The next attempts: nothing has to be done, unless it lasts.
    Retry,
    /// A person: they look, ask the vendor, or release.
    Person,
    /// A change of scimtail's configuration, of a credential, or of what Kafka takes.
    Configuration,
}

impl Class {
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Retry => "passes by itself",
            Class::Person => "a person looks",
            Class::Configuration => "configuration",
        }
    }
}

/// What there is to say of a code, whatever the attempt.
struct Facts {
    code: &'static str,
    class: Class,
    meaning: &'static str,
    remedy: &'static str,
}

impl ReasonCode {
    /// All codes that this version records.
    pub const ALL: [ReasonCode; 28] = [
        ReasonCode::Unreachable,
        ReasonCode::NotConnectable,
        ReasonCode::Unavailable,
        ReasonCode::HttpStatus,
        ReasonCode::Redirected,
        ReasonCode::CredentialsRefused,
        ReasonCode::CredentialUnreadable,
        ReasonCode::NotATokenResponse,
        ReasonCode::NotAListResponse,
        ReasonCode::NotAResource,
        ReasonCode::BodyTooLarge,
        ReasonCode::PageSizeRefused,
        ReasonCode::PagingIgnored,
        ReasonCode::PagingEndless,
        ReasonCode::CursorRefused,
        ReasonCode::StalePage,
        ReasonCode::TooManyRows,
        ReasonCode::TooManyPages,
        ReasonCode::TooManyPrincipals,
        ReasonCode::MemoryBudget,
        ReasonCode::SyncTimeout,
        ReasonCode::WalkIncomplete,
        ReasonCode::ListIncomplete,
        ReasonCode::FilterIgnored,
        ReasonCode::MassChange,
        ReasonCode::Repair,
        ReasonCode::CommitAborted,
        ReasonCode::EncodingFailed,
    ];

    /// The published text.
    pub fn as_str(&self) -> &str {
        match self {
            ReasonCode::Other(code) => code,
            known => known.facts().code,
        }
    }

    pub fn class(&self) -> Class {
        self.facts().class
    }

    /// What happened, in one sentence.
    pub fn meaning(&self) -> &'static str {
        self.facts().meaning
    }

    /// What ends it, in one sentence.
    pub fn remedy(&self) -> &'static str {
        self.facts().remedy
    }

    /// Inverse of [`ReasonCode::as_str`].
    pub fn parse(text: &str) -> ReasonCode {
        let known = ReasonCode::ALL.into_iter().find(|code| code.as_str() == text);
        known.unwrap_or_else(|| ReasonCode::Other(text.to_owned()))
    }

    fn facts(&self) -> Facts {
        use Class::{Configuration, Person, Retry};
        let (code, class, meaning, remedy) = match self {
            ReasonCode::Unreachable => (
                "unreachable",
                Retry,
                "The directory does not answer, or the connection to it fails.",
                "If it lasts, check `base_url`, name resolution and the network.",
            ),
            ReasonCode::NotConnectable => (
                "not_connectable",
                Configuration,
                "No connection comes about before a person acts: a certificate is not trusted or expired, a proxy \
                 refuses, or the address must not be asked.",
                "Correct the certificate, the proxy or the address that the message names.",
            ),
            ReasonCode::Unavailable => (
                "unavailable",
                Retry,
                "The vendor still throttles (HTTP 429) or is in trouble (HTTP 5xx) after all tries.",
                "If it lasts, raise `interval`, or ask the vendor for a higher limit.",
            ),
            ReasonCode::HttpStatus => (
                "http_status",
                Configuration,
                "The server answers with an HTTP status that is neither a success nor covered by another code.",
                "Check `base_url` and the settings that `scimtail check` names.",
            ),
            ReasonCode::Redirected => (
                "redirected",
                Configuration,
                "The server redirects to another address; scimtail sends no credential there.",
                "Set `base_url` to the address that the message names.",
            ),
            ReasonCode::CredentialsRefused => (
                "credentials_refused",
                Configuration,
                "The server refuses the credential (HTTP 401 or 403).",
                "Renew the token, or give it the missing permission.",
            ),
            ReasonCode::CredentialUnreadable => (
                "credential_unreadable",
                Configuration,
                "The secret cannot be read, or it cannot be sent as it is.",
                "Correct the environment variable or the file that the message names.",
            ),
            ReasonCode::NotATokenResponse => (
                "not_a_token_response",
                Configuration,
                "The answer of `token_url` is not an OAuth2 token response.",
                "Check `token_url`.",
            ),
            ReasonCode::NotAListResponse => (
                "not_a_list_response",
                Configuration,
                "The answer is not a SCIM list.",
                "Check `base_url`; it usually ends in `/scim/v2`.",
            ),
            ReasonCode::NotAResource => (
                "not_a_resource",
                Person,
                "No row of a list has a usable `id`.",
                "Ask the vendor whether this is SCIM 2.0.",
            ),
            ReasonCode::BodyTooLarge => (
                "body_too_large",
                Configuration,
                "An answer is larger than scimtail reads.",
                "Set a smaller `page_size`, or leave `members` out of the list.",
            ),
            ReasonCode::PageSizeRefused => (
                "page_size_refused",
                Configuration,
                "The server refuses the page size.",
                "Set the `page_size` that the message names.",
            ),
            ReasonCode::PagingIgnored => (
                "paging_ignored",
                Configuration,
                "The server ignores `startIndex` or the cursor, so only its first page can be read.",
                "Set the `paging` that the message names.",
            ),
            ReasonCode::PagingEndless => (
                "paging_endless",
                Person,
                "The server goes on offering pages that bring nothing new.",
                "Ask the vendor why its paging does not end.",
            ),
            ReasonCode::CursorRefused => (
                "cursor_refused",
                Retry,
                "The server repeatedly refuses a cursor that it gave (RFC 9865).",
                "If it lasts, set `paging = \"index\"`, or a smaller `page_size`.",
            ),
            ReasonCode::StalePage => (
                "stale_page",
                Retry,
                "The server answers \"not modified\" for a page whose rows are no longer known.",
                "Nothing; the next attempt asks for the whole page.",
            ),
            ReasonCode::TooManyRows => (
                "too_many_rows",
                Person,
                "One answer holds more rows than scimtail reads.",
                "Ask the vendor to page its lists.",
            ),
            ReasonCode::TooManyPages => (
                "too_many_pages",
                Person,
                "A list has more pages than scimtail reads.",
                "Raise `page_size`, or ask the vendor why the list is that long.",
            ),
            ReasonCode::TooManyPrincipals => (
                "too_many_principals",
                Configuration,
                "The directory has more users and groups than `limits.max_principals`.",
                "Raise `limits.max_principals` if the directory is that large.",
            ),
            ReasonCode::MemoryBudget => (
                "memory_budget",
                Configuration,
                "The sync would take more memory than `[limits] memory` leaves.",
                "Raise `[limits] memory`, or move accounts to another instance.",
            ),
            ReasonCode::SyncTimeout => {
                ("sync_timeout", Person, "The sync took longer than 24 hours.", "Ask the vendor for higher limits.")
            }
            ReasonCode::WalkIncomplete => (
                "walk_incomplete",
                Person,
                "A list stays short of its own total, so removals cannot be seen.",
                "The message says what the list does, and which setting helps.",
            ),
            ReasonCode::ListIncomplete => (
                "list_incomplete",
                Person,
                "A list leaves out principals that a GET by id still finds.",
                "Ask the vendor why; if it lists active users only, set `inactive = \"hidden\"`.",
            ),
            ReasonCode::FilterIgnored => (
                "filter_ignored",
                Configuration,
                "The server ignores the filter by which memberships are read.",
                "Set another `memberships`.",
            ),
            ReasonCode::MassChange => (
                "mass_change",
                Person,
                "The guard holds a change that is larger than its limits.",
                "Look with `scimtail plan`, then `scimtail release`, or correct the directory.",
            ),
            ReasonCode::Repair => (
                "repair",
                Retry,
                "Records of the account were lost or altered; one completed sync repairs them.",
                "If it lasts, look at `reason` beside it.",
            ),
            ReasonCode::CommitAborted => (
                "commit_aborted",
                Configuration,
                "Kafka refuses a record or a transaction of the sync, because it is too large or for another reason.",
                "Raise `max.message.bytes` of the topic, or give the permission that the message names.",
            ),
            ReasonCode::EncodingFailed => (
                "encoding_failed",
                Person,
                "A value does not fit its schema; this is a defect of scimtail.",
                "Report it with the message.",
            ),
            ReasonCode::Other(_) => {
                ("", Person, "Another version of scimtail recorded this code.", "See the documents of that version.")
            }
        };
        Facts { code, class, meaning, remedy }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a sync failed or is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub code: ReasonCode,
    /// What failed, to what, and what to do. Never text of a server.
    pub problem: Problem,
}

impl Reason {
    pub fn new(code: ReasonCode, problem: impl Into<Problem>) -> Reason {
        Reason { code, problem: problem.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_text_of_its_own_that_leads_back_to_it() {
        for code in ReasonCode::ALL {
            assert_eq!(ReasonCode::parse(code.as_str()), code);
            assert!(code.meaning().ends_with('.') && code.remedy().ends_with('.'), "{code}");
        }
        let later = ReasonCode::parse("recorded_by_a_later_version");
        assert_eq!(later.as_str(), "recorded_by_a_later_version", "it is kept as it is");
    }
}
