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
    let http_status = |what: String| ReadError::new(ReasonCode::HttpStatus, what);
    let unavailable = |what: String| ReadError::new(ReasonCode::Unavailable, what);
    let refused = |what: String| ReadError::new(ReasonCode::CredentialsRefused, what);
    let error = match code {
        400 | 403 | 413 if wants_a_filter(body) => http_status(format!(
            "the server does not list without a filter (HTTP {code}, scimType tooMany or invalidFilter)"
        ))
        .with_remedy("scimtail reads whole lists: ask the vendor for an endpoint that lists without a filter"),
        400 => http_status("the server refuses the list (HTTP 400)".to_owned())
            .with_remedy(no_groups.unwrap_or("ask the vendor which parameters its lists take")),
        401 => refused(format!("401: {} refused the {}", profile.title, profile.auth.noun()))
            .with_remedy(&profile.token_hint),
        403 => {
            let groups = no_groups.map(|hint| format!("; {hint}")).unwrap_or_default();
            refused("403: the credentials may not read this list".to_owned())
                .with_remedy(format!("{}{groups}", profile.token_hint))
        }
        404 => http_status("404: there is no SCIM list at this address".to_owned())
            .with_remedy(no_list("check base_url: it usually ends in /scim/v2")),
        405 | 501 => http_status(format!("{code}: listing is refused"))
            .with_remedy(no_list("this endpoint does not list, and scimtail cannot read it")),
        406 => http_status("406: the server does not answer in the form asked for".to_owned())
            .with_remedy("[account.profile] accept = \"application/json\", or accept = \"*/*\""),
        429 => unavailable("429: the vendor's rate limit is used up".to_owned()).with_remedy("a longer interval"),
        500.. => unavailable(format!("the server answers HTTP {code}")).with_remedy("try later, or ask the vendor"),
        _ => http_status(format!("the server answers HTTP {code}")),
    };
    ReadError { status: Some(code), ..error }
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
    let redirected = |what: String| ReadError::new(ReasonCode::Redirected, what);
    let error = match list.filter(|_| slashed) {
        Some(kind) => {
            let field = if kind == Kind::User { "users_path" } else { "groups_path" };
            redirected(format!("the server redirects to the same address with a slash (HTTP {status})"))
                .with_remedy(format!("[account.profile] {field} = \"{}/\"", profile.path(kind)))
        }
        None => redirected(format!("the server redirects (HTTP {status}), and scimtail never follows"))
            .with_remedy("set base_url to the final address"),
    };
    ReadError { status: Some(status), ..error }
}
