//! What a refusal of Okta means, with a remedy in Okta's words. Of the server's text only an error code is repeated.

use std::borrow::Cow;

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

use crate::directory::{Kind, ReasonCode};
use crate::json::{only_field, text};
use crate::scim::ReadError;
use crate::scim::client::Reply;
use crate::scim::profile::{Auth, Profile};

/// What a status other than 200 means for a list of `kind`.
pub fn refusal(reply: &Reply, profile: &Profile, kind: Kind) -> ReadError {
    let status = reply.status.as_u16();
    let code = error_code(&reply.body);
    let shown = code.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
    let by_token = profile.auth != Auth::Oauth2;
    let refused = |what: String| ReadError::new(ReasonCode::CredentialsRefused, what);
    let scope = match kind {
        Kind::User => "okta.users.read",
        Kind::Group => "okta.groups.read",
    };
    let error = match (status, challenge(&reply.headers)) {
        (401 | 403, Some("insufficient_scope")) => {
            refused(format!("{status}: the access token lacks the scope {scope}")).with_remedy(format!(
                "in the Admin Console: Applications > the API service app > Okta API Scopes > Grant {scope}, and name it \
                 in `scope`"
            ))
        }
        (400 | 401 | 403, Some("invalid_dpop_proof" | "use_dpop_nonce")) => refused(format!(
            "{status}: Okta refuses the proof of possession (DPoP) of the request"
        ))
        .with_remedy(
            "set the clock of this machine, or in the Admin Console: Applications > the API service app > General: \
             clear \"Require Demonstrating Proof of Possession (DPoP) header in token requests\"",
        ),
        (401, _) if by_token => refused(format!("401: Okta refuses the API token{shown}")).with_remedy(
            "it ends after 30 days without use, when it is revoked, and with the account that created it; in the Admin \
             Console: Security > API > Tokens > Create token",
        ),
        (401, _) => refused(format!("401: Okta refuses the access token{shown}"))
            .with_remedy("in the Admin Console: Applications > the API service app has to be Active, with this client_id"),
        (403, _) if code.is_none() => refused(
            "403 without an error code of the API: Okta refuses the address from which this machine connects".to_owned(),
        )
        .with_remedy(
            "in the Admin Console: Security > Networks: a blocked zone may have it; Security > API > Tokens: \"API calls \
             made with this token must originate from\"",
        ),
        (403, _) if by_token => refused(format!("403: the API token may not read this list{shown}")).with_remedy(
            "in the Admin Console: Security > Administrators: give the account that created the token the role Read-only \
             Administrator",
        ),
        (403, _) => refused(format!("403: the app may not read this list{shown}")).with_remedy(
            "in the Admin Console: Applications > the API service app > Admin roles: add Read-only Administrator",
        ),
        (404, _) => ReadError::new(ReasonCode::HttpStatus, format!("404: Okta's API is not at this address{shown}"))
            .with_remedy("base_url is the Okta domain alone, e.g. https://acme.okta.com"),
        (429, _) => ReadError::new(ReasonCode::Unavailable, format!("429: Okta's rate limit is used up{shown}"))
            .with_remedy("a longer interval; in the Admin Console: Reports > Rate limits shows who uses it"),
        (500.., _) => ReadError::new(ReasonCode::Unavailable, format!("Okta answers HTTP {status}{shown}"))
            .with_remedy("try later; status.okta.com"),
        _ => ReadError::new(ReasonCode::HttpStatus, format!("Okta answers HTTP {status}{shown}"))
            .with_remedy("ask Okta's support about this error code"),
    };
    ReadError { status: Some(status), ..error }
}

/// `errorCode` of an error's body, if it has the form of Okta's: E and seven digits.
fn error_code(body: &[u8]) -> Option<Cow<'_, str>> {
    let code = text(only_field(std::str::from_utf8(body).ok()?, "errorCode")?)?;
    let digits = code.strip_prefix('E')?;
    (digits.len() == 7 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(code)
}

/// `error` of a challenge (RFC 6750 §3, RFC 9449 §7.1), if it is one that says what to do.
fn challenge(headers: &HeaderMap) -> Option<&'static str> {
    const KNOWN: [&str; 3] = ["insufficient_scope", "invalid_dpop_proof", "use_dpop_nonce"];
    let lines = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| KNOWN.into_iter().find(|error| line.contains(&format!("error=\"{error}\"")))).next()
}
