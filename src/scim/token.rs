//! OAuth2 access tokens (RFC 6749 §4.4, §6): fetched with the client's secret, one at a time for however many requests.
//!
//! A token is renewed before it expires, and when it is refused although it should still hold.

use crate::directory::ReasonCode;
use crate::jwt::Signer;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use super::assertion::{ASSERTION_TYPE, Sources, assertion};
use super::dpop::{NONCE, PROOF, Proofs};
use super::error::ReadError;
use super::http::{Http, Reach, Timeouts, read_body};
use super::secret::{Numbered, ReadSecret, fits_a_header};

/// Bytes of a token endpoint's answer; a larger one does not hold a token.
pub(super) const TOKEN_ANSWER_BYTES_MAX: usize = 64 << 10;
/// One request for a token, from connect to the last byte.
pub(super) const TOKEN_WAIT: Duration = Duration::from_secs(30);
/// A token is renewed this long before it expires, but never in the first three quarters of its life.
const EXPIRY_MARGIN_MAX: Duration = Duration::from_secs(60);
/// Time between two renewals because of a 401. A server that refuses fresh tokens must not cause one fetch a request.
const RENEWALS_APART: Duration = Duration::from_secs(60);

/// The tokens of one credential.
pub(super) struct Tokens {
    http: Http,
    sources: Sources,
    /// Locked while a token is fetched: a request that comes meanwhile waits for that token instead of fetching another.
    issued: tokio::sync::Mutex<Issued>,
}

#[derive(Default)]
struct Issued {
    token: Option<Token>,
    number: u64,
    /// The newest renewal because of a 401.
    renewed_at: Option<Instant>,
    /// The newest failure, for those that waited for it.
    failed: Option<(Instant, ReadError)>,
    client_in: ClientIn,
    proofs: Proofs,
}

/// An access token, and the key to which it is bound.
#[derive(Clone)]
pub(super) struct AccessToken {
    pub pass: Numbered,
    pub bound_to: Option<Arc<Signer>>,
}

struct Token {
    pass: AccessToken,
    /// The number of the secret it was issued for.
    issued_for: u64,
    renew_at: Option<Instant>,
}

/// How a client proves to a token endpoint that it is the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientProof {
    /// It sends its secret (RFC 6749 §2.3.1).
    Secret,
    /// It signs an assertion with its private key (RFC 7523 §2.2). `id`: the `kid` of the key at the vendor.
    Key { id: Option<String> },
}

/// Parameters of a token request, beside those that prove the client. `grant_type` is among them if it is another one
/// than `client_credentials`.
pub type TokenParams = BTreeMap<String, String>;

/// The grant of a token request with these parameters (RFC 6749 §4.4.2, §4.5).
pub fn grant_type(params: &TokenParams) -> &str {
    params.get(GRANT_TYPE).map_or(CLIENT_CREDENTIALS, String::as_str)
}

/// The grant that takes the client's credentials alone (RFC 6749 §4.4).
pub const CLIENT_CREDENTIALS: &str = "client_credentials";

/// The grant that takes a refresh token (RFC 6749 §6).
pub const REFRESH_TOKEN: &str = "refresh_token";
/// The parameter that names the grant.
pub const GRANT_TYPE: &str = "grant_type";

/// Where a token endpoint takes the client's id and secret (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ClientIn {
    /// `Authorization: Basic …`
    #[default]
    Header,
    Body,
}

/// What a token endpoint answered.
struct TokenReply {
    status: StatusCode,
    body: Bytes,
    /// RFC 9449 §8.
    nonce: Option<String>,
}

/// A token that was issued.
pub struct Granted {
    pub secret: SecretString,
    /// `None`: it holds until it is refused.
    pub lifetime: Option<Duration>,
    /// It is bound to the key of the proof that was sent (RFC 9449 §5).
    pub is_bound: bool,
}

/// A successful answer of a token endpoint (RFC 6749 §5.1).
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    token_type: Option<String>,
    /// What the next request is to send in place of the refresh token of this one (RFC 6749 §6).
    refresh_token: Option<String>,
    /// Seconds, as a number or in quotes.
    expires_in: Option<Value>,
}

/// An unsuccessful one (RFC 6749 §5.2).
#[derive(Deserialize)]
struct TokenRefusal {
    error: String,
}

impl Tokens {
    /// `http`: connects to the token endpoint.
    pub(super) fn new(http: Http, sources: Sources) -> Tokens {
        Tokens { http, sources, issued: tokio::sync::Mutex::default() }
    }

    /// The token for the secret of this number, fetched if there is none that holds.
    ///
    /// # Errors
    /// The token endpoint issues none.
    pub(super) async fn pass(&self, grant: &Grant<'_>, number: u64) -> Result<AccessToken, ReadError> {
        let asked = Instant::now();
        let mut issued = self.issued.lock().await;
        let holds = |token: &&Token| {
            token.issued_for == number && token.renew_at.is_none_or(|renew_at| Instant::now() < renew_at)
        };
        if let Some(token) = issued.token.as_ref().filter(holds) {
            return Ok(token.pass.clone());
        }
        if let Some((_, error)) = issued.failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(error.clone());
        }
        let requested = Instant::now();
        let Issued { client_in, proofs, .. } = &mut *issued;
        match grant.fetch(&self.http, self.sources, client_in, Some(proofs)).await {
            Ok(granted) => {
                issued.number += 1;
                let bound_to = issued.proofs.key().filter(|_| granted.is_bound);
                let pass = Numbered { secret: granted.secret, number: issued.number };
                let pass = AccessToken { pass, bound_to };
                let renew_at = granted.lifetime.and_then(|lifetime| requested.checked_add(renew_after(lifetime)));
                issued.token = Some(Token { pass: pass.clone(), issued_for: number, renew_at });
                Ok(pass)
            }
            Err(error) => {
                issued.token = None;
                issued.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Drops the refused token; false if the one in its place would be refused too.
    pub(super) async fn renew(&self, refused: u64) -> bool {
        let mut issued = self.issued.lock().await;
        if issued.token.as_ref().is_none_or(|token| token.pass.pass.number != refused) {
            return true;
        }
        let now = Instant::now();
        if issued.renewed_at.is_some_and(|at| now < at + RENEWALS_APART) {
            return false;
        }
        issued.renewed_at = Some(now);
        issued.token = None;
        true
    }
}

/// How long a token is used.
fn renew_after(lifetime: Duration) -> Duration {
    lifetime - EXPIRY_MARGIN_MAX.min(lifetime / 4)
}

/// A bearer token for a server that speaks no SCIM. Nothing is kept of it.
///
/// # Errors
/// The token endpoint must not be asked, or issues none.
pub async fn issue(
    grant: &Grant<'_>,
    reach: &Reach,
    timeouts: Timeouts,
    sources: Sources,
) -> Result<Granted, ReadError> {
    let http = Http::to(grant.token_url, reach, timeouts).map_err(at_token_url)?;
    grant.fetch(&http, sources, &mut ClientIn::default(), None).await
}

/// One request for a token.
pub struct Grant<'a> {
    pub client_id: &'a str,
    pub token_url: &'a Url,
    pub scope: Option<&'a str>,
    pub params: &'a TokenParams,
    pub secret: &'a SecretString,
    /// Reads the refresh token, if the grant takes one.
    pub refresh_token: Option<&'a ReadSecret>,
    pub proof: &'a ClientProof,
    /// What to do at this vendor, by the `error` of its token endpoint.
    pub remedies: &'a BTreeMap<String, String>,
}

impl Grant<'_> {
    /// A new token. `client_in`: Basic is tried first, because every server has to take it (RFC 6749 §2.3.1), and some
    /// do not. `proofs`: `None` if a token that is bound to a key is of no use.
    async fn fetch(
        &self,
        http: &Http,
        sources: Sources,
        client_in: &mut ClientIn,
        mut proofs: Option<&mut Proofs>,
    ) -> Result<Granted, ReadError> {
        let refresh = self.refresh_token.map(|read| read()).transpose();
        let refresh = refresh.map_err(|text| ReadError::new(ReasonCode::CredentialUnreadable, text))?;
        let ask = Ask { grant: self, http, sources, refresh: refresh.as_ref() };
        if let ClientProof::Key { id } = self.proof {
            // Each assertion is used once.
            let request = || {
                let signed = assertion(self.secret, id.as_deref(), self.client_id, self.token_url, sources)?;
                Ok(ask.with_assertion(&signed))
            };
            return ask.granted(&ask.send_proven(request, &mut proofs).await?);
        }
        let first = ask.send_proven(|| Ok(ask.with_secret(*client_in)), &mut proofs).await?;
        if *client_in == ClientIn::Body || !first.refuses_the_client() {
            return ask.granted(&first);
        }
        match ask.granted(&ask.send_proven(|| Ok(ask.with_secret(ClientIn::Body)), &mut proofs).await?) {
            Ok(token) => {
                *client_in = ClientIn::Body;
                Ok(token)
            }
            Err(_) => ask.granted(&first),
        }
    }
}

/// A request for a token with all its secrets.
struct Ask<'a> {
    grant: &'a Grant<'a>,
    http: &'a Http,
    sources: Sources,
    refresh: Option<&'a SecretString>,
}

/// Requests for one token: without a proof, with a proof, and with a proof that has the nonce.
const PROVEN_TRIES: usize = 3;

impl Ask<'_> {
    /// Sends a request, again with a proof if the token endpoint asks for one.
    async fn send_proven(
        &self,
        request: impl Fn() -> Result<RequestBuilder, ReadError>,
        proofs: &mut Option<&mut Proofs>,
    ) -> Result<TokenReply, ReadError> {
        let mut tries = 0;
        loop {
            let mut request = request()?;
            if let Some(proof) =
                proofs.as_ref().map(|proofs| proofs.of_token_request(self.grant.token_url, self.sources))
            {
                request = proof?.into_iter().fold(request, |request, proof| request.header(PROOF, proof));
            }
            let reply = self.send(request).await?;
            tries += 1;
            let again = match proofs {
                Some(proofs) => proofs.follow(reply.error().as_deref(), reply.nonce.as_deref())?,
                None => false,
            };
            if !again || tries == PROVEN_TRIES {
                return Ok(reply);
            }
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<TokenReply, ReadError> {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(at_token_url(self.http.looked_into(&error, self.grant.token_url).await)),
        };
        let status = response.status();
        let nonce = response.headers().get(NONCE).and_then(|nonce| nonce.to_str().ok()).map(str::to_owned);
        let body = read_body(self.http, response, TOKEN_ANSWER_BYTES_MAX, None).await;
        let body = body.map_err(|error| match error.code {
            ReasonCode::BodyTooLarge => no_token(status, "with more than any token needs"),
            _ => at_token_url(error),
        })?;
        Ok(TokenReply { status, body: body.clone(), nonce })
    }

    /// A request with the client's id and secret.
    fn with_secret(&self, client_in: ClientIn) -> RequestBuilder {
        let (mut form, mut request) = self.request();
        let (id, secret) = (self.grant.client_id, self.grant.secret.expose_secret());
        if client_in == ClientIn::Body {
            form.append_pair("client_id", id).append_pair("client_secret", secret);
        } else {
            let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            request = request.basic_auth(encoded(id), Some(encoded(secret)));
        }
        request.body(form.finish())
    }

    /// A request with an assertion. The client's id is optional there (RFC 7521 §4.2), and some servers demand it.
    fn with_assertion(&self, signed: &str) -> RequestBuilder {
        let (mut form, request) = self.request();
        form.append_pair("client_id", self.grant.client_id);
        form.append_pair("client_assertion_type", ASSERTION_TYPE).append_pair("client_assertion", signed);
        request.body(form.finish())
    }

    fn request(&self) -> (form_urlencoded::Serializer<'static, String>, RequestBuilder) {
        let Grant { token_url, scope, params, .. } = self.grant;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair(GRANT_TYPE, grant_type(params));
        if let Some(scope) = scope {
            form.append_pair("scope", scope);
        }
        form.extend_pairs(params.iter().filter(|(name, _)| *name != GRANT_TYPE));
        if let Some(token) = self.refresh {
            form.append_pair(REFRESH_TOKEN, token.expose_secret());
        }
        let request = self.http.client.post((*token_url).clone()).header(ACCEPT, "application/json");
        (form, request.header(CONTENT_TYPE, "application/x-www-form-urlencoded"))
    }

    fn granted(&self, reply: &TokenReply) -> Result<Granted, ReadError> {
        granted(reply, self.grant, self.refresh)
    }
}

impl TokenReply {
    /// The `error` of an unsuccessful answer.
    fn error(&self) -> Option<String> {
        serde_json::from_slice::<TokenRefusal>(&self.body).ok().map(|refusal| refusal.error)
    }

    /// True if the other way to send the client's credentials may help.
    fn refuses_the_client(&self) -> bool {
        matches!(self.status.as_u16(), 400 | 401 | 403)
            && !matches!(
                self.error().as_deref(),
                Some("invalid_scope" | "unsupported_grant_type" | "invalid_dpop_proof" | "use_dpop_nonce")
            )
    }
}

/// What a token endpoint's answer means, in words with a remedy. `refresh`: the refresh token that was sent.
fn granted(reply: &TokenReply, grant: &Grant<'_>, refresh: Option<&SecretString>) -> Result<Granted, ReadError> {
    let TokenReply { status, body, .. } = reply;
    let code = status.as_u16();
    let failed = |error: ReasonCode, what: String| ReadError::new(error, what);
    match code {
        200 | 201 => {}
        300..=399 => {
            let what = format!("token_url redirects (HTTP {code}), and scimtail never follows");
            return Err(failed(ReasonCode::Redirected, what).with_remedy("set token_url to the final address"));
        }
        404 | 405 => {
            let what = format!("token_url answers HTTP {code}: no tokens there");
            return Err(failed(ReasonCode::HttpStatus, what).with_remedy("check token_url"));
        }
        429 => {
            return Err(failed(ReasonCode::Unavailable, "429: the token endpoint's rate limit is used up".to_owned()));
        }
        408 | 500.. => return Err(failed(ReasonCode::Unavailable, format!("the token endpoint answers HTTP {code}"))),
        _ => {
            let error = reply.error();
            let (what, remedy) = refused(code, error.as_deref(), grant.proof, grant.params);
            let remedy = error.and_then(|error| grant.remedies.get(&error).cloned()).unwrap_or(remedy);
            let what = format!("{code}: the token endpoint refused {what}");
            return Err(failed(ReasonCode::CredentialsRefused, what).with_remedy(remedy));
        }
    }
    let no_token = |what: &str| no_token(*status, what);
    let answer: TokenAnswer = serde_json::from_slice(body).map_err(|_| no_token("without an access token"))?;
    if answer.access_token.is_empty() || !fits_a_header(&answer.access_token) {
        return Err(no_token("with an access token that no header can carry"));
    }
    let kind = answer.token_type.as_deref().unwrap_or("bearer");
    let is_bound = kind.eq_ignore_ascii_case(PROOF);
    if !is_bound && !kind.eq_ignore_ascii_case("bearer") {
        return Err(no_token("with a token that is neither a bearer token nor bound to a key"));
    }
    if let (Some(sent), Some(next)) = (refresh, &answer.refresh_token)
        && sent.expose_secret() != next
    {
        let what = "the token endpoint replaces the refresh token at each use, and scimtail cannot store the new one";
        let remedy =
            "let another program renew the access token: auth = \"bearer\" in [account.profile], and token_file";
        return Err(failed(ReasonCode::NotATokenResponse, what.to_owned()).with_remedy(remedy));
    }
    let seconds = match answer.expires_in {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    // A lifetime that makes no sense is ignored: the token holds until it is refused.
    let lifetime =
        seconds.filter(|seconds| *seconds > 0.0).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok(Granted { secret: SecretString::from(answer.access_token), lifetime, is_bound })
}

/// What a token endpoint refused by this status and `error` (RFC 6749 §5.2), and what to do.
fn refused(status: u16, error: Option<&str>, proof: &ClientProof, params: &TokenParams) -> (String, String) {
    let grant = grant_type(params);
    let proven_by = match proof {
        ClientProof::Secret => "client_id, the client secret",
        ClientProof::Key { .. } => "client_id, private_key_file, key_id",
    };
    let checked = if params.is_empty() { " and scope" } else { ", scope and token_params" };
    match (error, proof) {
        (Some("invalid_dpop_proof" | "use_dpop_nonce"), _) => (
            "the request, because it asks for other proofs of possession (DPoP) than scimtail sends".to_owned(),
            "switch DPoP off for this client_id at the vendor".to_owned(),
        ),
        (Some("invalid_scope"), _) => ("the scope".to_owned(), "check scope".to_owned()),
        // 401 is for clients that cannot prove who they are (RFC 6749 §5.2). Keycloak answers it for a wrong secret, and
        // for a client without service accounts.
        (Some("unauthorized_client"), _) if status == 401 && grant == CLIENT_CREDENTIALS => (
            "the client".to_owned(),
            format!(
                "check {}, and allow client credentials for this client_id at the vendor",
                match proof {
                    ClientProof::Secret => "client_id and the client secret",
                    ClientProof::Key { .. } => "client_id, private_key_file and key_id",
                }
            ),
        ),
        (Some("unauthorized_client" | "unsupported_grant_type"), _) if grant == CLIENT_CREDENTIALS => (
            "the client credentials grant".to_owned(),
            "allow it for this client_id at the vendor, or set another grant_type in token_params".to_owned(),
        ),
        (Some("unauthorized_client" | "unsupported_grant_type"), _) => (
            format!("the grant `{grant}`"),
            "check token_params, and the grants of this client_id at the vendor".to_owned(),
        ),
        (Some("invalid_grant"), _) if grant == REFRESH_TOKEN => {
            ("the refresh token".to_owned(), "put a new one in its place".to_owned())
        }
        (_, ClientProof::Secret) => ("the client credentials".to_owned(), format!("check {proven_by}{checked}")),
        (_, ClientProof::Key { .. }) => {
            ("the assertion of the client".to_owned(), format!("check {proven_by}{checked}"))
        }
    }
}

fn no_token(status: StatusCode, what: &str) -> ReadError {
    let code = status.as_u16();
    ReadError::new(ReasonCode::NotATokenResponse, format!("token_url answers HTTP {code}, but {what}"))
        .with_remedy("check token_url")
}

pub(super) fn at_token_url(error: ReadError) -> ReadError {
    ReadError { problem: error.problem.of("token_url"), ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_expires_but_not_at_once() {
        for (lifetime, used) in [(3600, 3540), (240, 180), (100, 75), (4, 3)] {
            assert_eq!(renew_after(Duration::from_secs(lifetime)), Duration::from_secs(used));
        }
        let lifetime = |expires_in: &str| {
            let body = format!(r#"{{"access_token": "a", "expires_in": {expires_in}}}"#);
            let reply = TokenReply { status: StatusCode::OK, body: body.into(), nonce: None };
            let (token_url, secret) =
                (Url::parse("https://a.example/token").unwrap(), SecretString::from("s".to_owned()));
            let grant = Grant {
                client_id: "a",
                token_url: &token_url,
                scope: None,
                params: &TokenParams::new(),
                secret: &secret,
                refresh_token: None,
                proof: &ClientProof::Secret,
                remedies: &BTreeMap::new(),
            };
            granted(&reply, &grant, None).unwrap().lifetime
        };
        assert_eq!(lifetime("3600"), Some(Duration::from_secs(3600)));
        assert_eq!(lifetime("\"60\""), Some(Duration::from_secs(60)));
        for senseless in ["0", "-1", "null", "\"soon\"", "1e300", "[]"] {
            assert_eq!(lifetime(senseless), None, "{senseless}");
        }
    }
}
