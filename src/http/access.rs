//! Which requests are answered: on loopback those that name this machine, elsewhere those that show the token.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tracing::warn;

use crate::directory::Problem;

/// How a browser asks a person for the token: as the password of any user (RFC 7617). Programs send it as a bearer
/// token (RFC 6750).
const CHALLENGE: &str = "Basic realm=\"scimtail\", charset=\"UTF-8\"";

/// Reads the token as it is now, so that its rotation takes effect.
#[derive(Clone)]
pub struct ReadToken(pub Arc<dyn Fn() -> Result<SecretString, String> + Send + Sync>);

impl fmt::Debug for ReadToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ReadToken")
    }
}

#[derive(Clone, Debug)]
pub struct Access {
    /// The listener is on loopback.
    pub loopback: bool,
    pub token: Option<ReadToken>,
}

pub async fn check(State(access): State<Access>, request: Request, next: Next) -> Response {
    // A page of another site can make a browser send requests to loopback, under the name of that site (DNS rebinding).
    if access.loopback && !names_this_machine(request.headers()) {
        let text = "the Host header does not name this machine; → use http://localhost and the port\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    let Some(token) = access.token else { return next.run(request).await };
    // Reading a file blocks.
    match tokio::task::spawn_blocking(move || (token.0)()).await {
        Ok(Ok(expected)) if shows(request.headers(), &expected) => next.run(request).await,
        Ok(Ok(_)) => {
            let text = "a token is needed; → Authorization: Bearer, or in a browser as the password of any user\n";
            (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, CHALLENGE)], text).into_response()
        }
        read => {
            let reason = read.ok().and_then(Result::err).unwrap_or_default();
            warn!("{}", no_token(&reason));
            (StatusCode::SERVICE_UNAVAILABLE, "the token cannot be read; → the log of scimtail says why\n")
                .into_response()
        }
    }
}

/// What is said of a token that cannot be read.
pub fn no_token(reason: &str) -> Problem {
    let (reason, remedy) = reason.split_once("; → ").unwrap_or((reason, "correct http.token_file"));
    Problem::new(format!("[http] the token cannot be read, so that no request is answered: {reason}"))
        .with_remedy(remedy)
}

/// Whether the request names loopback, with any port.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn shows(headers: &HeaderMap, expected: &SecretString) -> bool {
    let Some(shown) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else { return false };
    let Some((scheme, shown)) = shown.split_once(' ') else { return false };
    let is = |token: &[u8]| bool::from(token.ct_eq(expected.expose_secret().as_bytes()));
    if scheme.eq_ignore_ascii_case("bearer") {
        return is(shown.trim().as_bytes());
    }
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(shown.trim()).ok()).flatten();
    decoded.is_some_and(|decoded| {
        decoded.iter().position(|byte| *byte == b':').is_some_and(|colon| is(&decoded[colon + 1..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: axum::http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn only_names_of_this_machine_are_answered_on_loopback() {
        let named = |host| names_this_machine(&headers(HOST, host));
        assert!(
            ["localhost", "LOCALHOST:9464", "127.0.0.1:9464", "127.1.2.3", "[::1]", "[::1]:9464"].map(named)
                == [true; 6]
        );
        let others =
            ["evil.example", "localhost.evil.example:9464", "10.0.0.1", "127.0.0.1.nip.io", "[fe80::1]", "", "::1"];
        assert_eq!(others.map(named), [false; 7]);
        assert!(!names_this_machine(&HeaderMap::new()));
        let mut two = headers(HOST, "localhost");
        two.append(HOST, "evil.example".parse().unwrap());
        assert!(!names_this_machine(&two));
    }

    #[test]
    fn the_token_is_shown_as_a_bearer_token_or_as_a_password() {
        let expected = SecretString::from("s3cret:canary");
        let shows = |value: &str| shows(&headers(AUTHORIZATION, value), &expected);
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert!(shows("Bearer s3cret:canary") && shows("bearer  s3cret:canary"));
        assert!(shows(&basic("anyone:s3cret:canary")) && shows(&basic(":s3cret:canary")));
        for wrong in ["Bearer s3cret", "Bearer", "s3cret:canary", "Basic !!", &basic("s3cret:canary"), &basic("x")] {
            assert!(!shows(wrong), "{wrong}");
        }
        assert!(!super::shows(&HeaderMap::new(), &expected));
    }
}
