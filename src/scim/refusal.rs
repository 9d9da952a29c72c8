//! What an answer means that is not what was asked for, in words with a remedy. The words hold no text of the server.

use crate::directory::{Kind, ReasonCode};
use reqwest::StatusCode;
use url::Url;

use super::envelope;
use super::error::ReadError;
use super::profile::Profile;
use super::urls::Urls;

/// What a status other than 200 means for a list of `kind`. `body`: of the answer.
pub fn refusal(status: StatusCode, body: &[u8], profile: &Profile, kind: Kind) -> ReadError {
    let code = status.as_u16();
    let no_groups =
        (kind == Kind::Group).then_some("if this directory serves no groups: [account.profile] groups = false");
    let no_list = |otherwise: &str| match (no_groups, profile.no_list_hint.as_deref()) {
        (Some(hint), _) => hint.to_owned(),
        (None, hint) => hint.unwrap_or(otherwise).to_owned(),
    };
    let (error_code, text) = match code {
        400 | 403 | 413 if wants_a_filter(body) => (
            ReasonCode::HttpStatus,
            format!(
                "the server does not list without a filter (HTTP {code}, scimType tooMany or invalidFilter); \
                 → scimtail reads whole lists: ask the vendor for an endpoint that lists without a filter"
            ),
        ),
        400 => {
            let remedy = no_groups.unwrap_or("ask the vendor which parameters its lists take");
            (ReasonCode::HttpStatus, format!("the server refuses the list (HTTP 400); → {remedy}"))
        }
        401 => (
            ReasonCode::CredentialsRefused,
            format!("401: {} refused the {}; → {}", profile.title, profile.auth.noun(), profile.token_hint),
        ),
        403 => {
            let groups = no_groups.map(|hint| format!("; {hint}")).unwrap_or_default();
            let text = format!("403: the credentials may not read this list; → {}{groups}", profile.token_hint);
            (ReasonCode::CredentialsRefused, text)
        }
        404 => {
            let remedy = no_list("check base_url: it usually ends in /scim/v2");
            (ReasonCode::HttpStatus, format!("404: there is no SCIM list at this address; → {remedy}"))
        }
        405 | 501 => {
            let remedy = no_list("this endpoint does not list, and scimtail cannot read it");
            (ReasonCode::HttpStatus, format!("{code}: listing is refused; → {remedy}"))
        }
        406 => (
            ReasonCode::HttpStatus,
            "406: the server does not answer in the form asked for; \
             → [account.profile] accept = \"application/json\", or accept = \"*/*\""
                .to_owned(),
        ),
        429 => (ReasonCode::Unavailable, "429: the vendor's rate limit is used up; → a longer interval".to_owned()),
        500.. => (ReasonCode::Unavailable, format!("the server answers HTTP {code}; → try later, or ask the vendor")),
        _ => (ReasonCode::HttpStatus, format!("the server answers HTTP {code}")),
    };
    ReadError { status: Some(code), ..ReadError::new(error_code, text) }
}

/// True for a SCIM error by which a server demands a filter (RFC 7644 §3.12).
fn wants_a_filter(body: &[u8]) -> bool {
    envelope::scim_type(body).is_some_and(|said| matches!(said.as_str(), "toomany" | "invalidfilter"))
}

/// What a redirect of `url` means; `location`: where to. Redirects are never followed, because one could carry the
/// token to another host. One that only adds a slash can be cured by the profile.
pub(super) fn redirected(
    urls: &Urls,
    profile: &Profile,
    url: &Url,
    status: StatusCode,
    location: Option<&str>,
) -> ReadError {
    let status = status.as_u16();
    let target = location.and_then(|location| url.join(location).ok());
    let slashed = target.is_some_and(|target| target.path() == format!("{}/", url.path()));
    let list = Kind::BOTH.into_iter().find(|kind| urls.list(*kind, &[]).path() == url.path());
    let text = match list.filter(|_| slashed) {
        Some(kind) => {
            let field = if kind == Kind::User { "users_path" } else { "groups_path" };
            format!(
                "the server redirects to the same address with a slash (HTTP {status}); \
                 → [account.profile] {field} = \"{}/\"",
                profile.path(kind)
            )
        }
        None => format!(
            "the server redirects (HTTP {status}), and scimtail never follows; → set base_url to the final address"
        ),
    };
    ReadError { status: Some(status), ..ReadError::new(ReasonCode::Redirected, text) }
}
