//! Credentials: what a request carries to be let in, and how that is renewed.
//!
//! Every scheme has one secret. It is read again at the start of each sync and once more when it is refused, so that a
//! rotated one takes effect. With OAuth2 the secret is exchanged for access tokens.

use crate::directory::ReasonCode;
use crate::jwt::Signer;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use xxhash_rust::xxh3::Xxh3;

use super::assertion;
pub use super::assertion::Sources;
use super::dpop::{self, PROOF};
use super::error::ReadError;
use super::http::{Http, Reach, Timeouts};
pub use super::secret::ReadSecret;
use super::secret::{Numbered, fits_a_header};
use super::token::{AccessToken, Grant, TOKEN_WAIT, Tokens, at_token_url};
pub use super::token::{ClientProof, TokenParams};

/// How a request carries the credential, without the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `Authorization: Bearer <secret>` (RFC 6750 §2.1).
    Bearer,
    /// The secret is the password (RFC 7617).
    Basic { username: String },
    /// The secret is in a header of the vendor's, behind `prefix` and a space if there is a prefix.
    ApiKey { header: HeaderName, prefix: String },
    /// The secret is the client's; it is exchanged for bearer tokens (RFC 6749 §4.4).
    Oauth2 { client_id: String, token_url: Url, scope: Option<String>, params: TokenParams, proof: ClientProof },
}

impl Scheme {
    /// # Errors
    /// A header name or prefix that no request can carry.
    pub fn api_key(header: &str, prefix: &str) -> Result<Scheme, String> {
        let name = HeaderName::from_bytes(header.as_bytes());
        // The text is not repeated: the key may have been written behind the name.
        let header =
            name.map_err(|_| "auth_header is not the name of a header; → the name alone, e.g. \"X-Api-Key\"")?;
        if !fits_a_header(prefix) {
            return Err("auth_prefix holds characters that no header can carry".to_owned());
        }
        Ok(Scheme::ApiKey { header, prefix: prefix.to_owned() })
    }

    /// # Errors
    /// A user name that Basic cannot carry (RFC 7617 §2).
    pub fn basic(username: &str) -> Result<Scheme, String> {
        if username.contains(|c: char| c == ':' || c.is_control()) {
            return Err("username must not hold a colon or control characters (RFC 7617)".to_owned());
        }
        Ok(Scheme::Basic { username: username.to_owned() })
    }

    /// # Errors
    /// No header can carry the secret.
    fn check(&self, secret: &SecretString) -> Result<(), ReadError> {
        let as_it_stands = matches!(self, Scheme::Bearer | Scheme::ApiKey { .. });
        if let Scheme::Oauth2 { proof: ClientProof::Key { id }, .. } = self {
            assertion::signer(secret, id.as_deref())?;
        }
        if as_it_stands && !fits_a_header(secret.expose_secret()) {
            return Err(no_header());
        }
        Ok(())
    }
}

fn no_header() -> ReadError {
    let what = "the token holds characters that no header can carry";
    ReadError::new(ReasonCode::CredentialUnreadable, what).with_remedy("only the token itself in one line")
}

/// The credential of one endpoint.
pub struct Credential {
    scheme: Scheme,
    read: ReadSecret,
    /// Of the OAuth2 grant that takes a refresh token (RFC 6749 §6). It is read for each request for a token.
    refresh_token: Option<ReadSecret>,
    /// The refresh token as it was last read here: another one may lead to another directory, as another secret may.
    refresh_token_seen: Mutex<Option<SecretString>>,
    current: Mutex<Numbered>,
    /// Of OAuth2 only.
    tokens: Option<Tokens>,
    /// What to do at this vendor, by the `error` of its token endpoint.
    token_remedies: BTreeMap<String, String>,
    /// The newest one that the directory gave for proofs (RFC 9449 §8.2).
    nonce: Mutex<Option<String>>,
    sources: Sources,
}

/// What one request was signed with: a token or the secret itself.
pub struct Pass {
    pass: Numbered,
    /// The key to which a token is bound (RFC 9449).
    bound_to: Option<Arc<Signer>>,
    /// The directory's, for the proof.
    nonce: Option<String>,
}

impl Credential {
    /// Reads the secret for the first time.
    ///
    /// # Errors
    /// The secret cannot be read or used, or `token_url` must not be asked.
    pub fn new(scheme: Scheme, read: ReadSecret, reach: &Reach, sources: Sources) -> Result<Credential, ReadError> {
        let secret = read().map_err(|text| ReadError::new(ReasonCode::CredentialUnreadable, text))?;
        scheme.check(&secret)?;
        let tokens = match &scheme {
            Scheme::Oauth2 { token_url, .. } => {
                let timeouts = Timeouts { request: TOKEN_WAIT, ..Timeouts::default() };
                let http = Http::to(token_url, reach, timeouts).map_err(at_token_url)?;
                Some(Tokens::new(http, sources))
            }
            _ => None,
        };
        let current = Mutex::new(Numbered { secret, number: 0 });
        Ok(Credential {
            scheme,
            read,
            refresh_token: None,
            refresh_token_seen: Mutex::default(),
            current,
            tokens,
            token_remedies: BTreeMap::new(),
            nonce: Mutex::default(),
            sources,
        })
    }

    /// The credential with a refresh token, which is a second secret.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn with_refresh_token(self, read: ReadSecret) -> Result<Credential, ReadError> {
        let token = read().map_err(|text| ReadError::new(ReasonCode::CredentialUnreadable, text))?;
        Ok(Credential { refresh_token: Some(read), refresh_token_seen: Mutex::new(Some(token)), ..self })
    }

    /// The credential with what to do if the token endpoint answers with an `error` of that name.
    #[must_use]
    pub fn with_token_remedies(self, token_remedies: BTreeMap<String, String>) -> Credential {
        Credential { token_remedies, ..self }
    }

    /// A bearer token that stays what it is.
    ///
    /// # Errors
    /// No header can carry it.
    pub fn bearer(token: SecretString) -> Result<Credential, ReadError> {
        // Only an assertion takes anything of its sources.
        let sources = Sources { now: || 0, random: || 0 };
        Credential::new(Scheme::Bearer, Arc::new(move || Ok(token.clone())), &Reach::default(), sources)
    }

    /// Reads the secrets again; true if one of them is another one now.
    ///
    /// # Errors
    /// One cannot be read or used; those before stay.
    pub fn reread(&self) -> Result<bool, ReadError> {
        let unreadable = |text| ReadError::new(ReasonCode::CredentialUnreadable, text);
        let secret = (self.read)().map_err(unreadable)?;
        self.scheme.check(&secret)?;
        let refresh_token = self.refresh_token.as_ref().map(|read| read()).transpose().map_err(unreadable)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = self.refresh_token_seen.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = current.secret.expose_secret() != secret.expose_secret()
            || seen.as_ref().map(ExposeSecret::expose_secret)
                != refresh_token.as_ref().map(ExposeSecret::expose_secret);
        if changed {
            *current = Numbered { secret, number: current.number + 1 };
            *seen = refresh_token;
        }
        Ok(changed)
    }

    /// Of the secret as it is now: another one has another number.
    pub fn number(&self) -> u64 {
        self.current().number
    }

    fn current(&self) -> Numbered {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the next request is to be signed with.
    ///
    /// # Errors
    /// The token endpoint issues no token.
    pub async fn pass(&self) -> Result<Pass, ReadError> {
        let current = self.current();
        match (&self.tokens, &self.scheme) {
            (Some(tokens), Scheme::Oauth2 { client_id, token_url, scope, params, proof }) => {
                let (scope, refresh_token) = (scope.as_deref(), self.refresh_token.as_ref());
                let secret = &current.secret;
                let remedies = &self.token_remedies;
                let grant = Grant { client_id, token_url, scope, params, secret, refresh_token, proof, remedies };
                let AccessToken { pass, bound_to } = tokens.pass(&grant, current.number).await?;
                let nonce = self.nonce.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Ok(Pass { pass, bound_to, nonce })
            }
            _ => Ok(Pass { pass: current, bound_to: None, nonce: None }),
        }
    }

    /// Takes over the nonce that an answer gives for the next proofs; true if it is another one than the proof of the
    /// answered request had.
    pub fn follow_nonce(&self, pass: &Pass, answer: &HeaderMap) -> bool {
        if pass.bound_to.is_none() {
            return false;
        }
        let Some(nonce) = dpop::nonce_for_next(answer) else { return false };
        let is_another = pass.nonce.as_deref() != Some(&*nonce);
        *self.nonce.lock().unwrap_or_else(PoisonError::into_inner) = Some(nonce);
        is_another
    }

    /// Adds the credential to a request of this method to this URL.
    ///
    /// # Errors
    /// The token is bound to a key that cannot sign.
    pub fn sign(
        &self,
        request: RequestBuilder,
        method: &Method,
        url: &Url,
        pass: &Pass,
    ) -> Result<RequestBuilder, ReadError> {
        let secret = pass.pass.secret.expose_secret();
        if let Some(key) = &pass.bound_to {
            let proof = dpop::proof(key, method, url, pass.nonce.as_deref(), Some(&pass.pass.secret), self.sources)?;
            let mut value = HeaderValue::try_from(format!("{PROOF} {secret}")).map_err(|_| no_header())?;
            value.set_sensitive(true);
            return Ok(request.header(AUTHORIZATION, value).header(PROOF, proof));
        }
        Ok(match &self.scheme {
            Scheme::Bearer | Scheme::Oauth2 { .. } => request.bearer_auth(secret),
            Scheme::Basic { username } => request.basic_auth(username, Some(secret)),
            Scheme::ApiKey { header, prefix } => {
                let text = if prefix.is_empty() { secret.to_owned() } else { format!("{prefix} {secret}") };
                match HeaderValue::try_from(text) {
                    Ok(mut value) => {
                        value.set_sensitive(true);
                        request.header(header, value)
                    }
                    // Checked when it was read.
                    Err(_) => request,
                }
            }
        })
    }

    /// After a 401; true if the next pass is another one than the refused one.
    pub async fn renew(&self, refused: &Pass) -> bool {
        // A secret that cannot be read counts as unchanged: the 401 says what has to be done.
        let changed = self.reread().unwrap_or(false);
        match &self.tokens {
            Some(tokens) => tokens.renew(refused.pass.number).await || changed,
            None => changed || self.current().number != refused.pass.number,
        }
    }

    /// Hash of the credential at this host: the same one gives the same number in every account.
    pub fn key(&self, base_url: &Url) -> u128 {
        let mut hash = Xxh3::new();
        let user = match &self.scheme {
            Scheme::Bearer | Scheme::ApiKey { .. } => "",
            Scheme::Basic { username: user } | Scheme::Oauth2 { client_id: user, .. } => user,
        };
        let port = base_url.port_or_known_default().unwrap_or_default();
        for part in [base_url.host_str().unwrap_or_default(), &port.to_string(), user] {
            hash.update(part.as_bytes());
            hash.update(&[0]);
        }
        hash.update(self.current().secret.expose_secret().as_bytes());
        hash.digest128()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use axum::Router;
    use axum::body::Body;
    use axum::extract::State;
    use axum::http::{HeaderMap, Response, Uri};
    use tokio::task::JoinSet;

    use super::*;
    use crate::directory::Kind;
    use crate::scim::client::{Client, Patience};
    use crate::scim::profile::Profile;
    use crate::scim::refusal::refusal;
    use crate::scim::token::TOKEN_ANSWER_BYTES_MAX;
    use crate::telemetry::lines::Lines;

    const SECRET: &str = "secret-canary";
    const SOURCES: Sources = Sources { now: || 1_700_000_000_000, random: || 1 };

    /// What the vendor accepts and has seen.
    #[derive(Default)]
    struct Vendor {
        accepted: String,
        seen: Vec<HeaderMap>,
        /// Authorization header and body of each request for a token.
        asked: Vec<(String, String)>,
        /// Answers of the token endpoint, one after the other; then tokens `token-1`, `token-2` ...
        answers: VecDeque<(u16, String)>,
        issued: u32,
        takes_body_only: bool,
        accepts_nothing: bool,
    }

    type Shared = Arc<Mutex<Vendor>>;

    async fn answer(State(vendor): State<Shared>, uri: Uri, headers: HeaderMap, body: String) -> Response<Body> {
        let mut vendor = vendor.lock().unwrap();
        let authorization = headers.get("authorization").map_or("", |value| value.to_str().unwrap()).to_owned();
        let reply = |status: u16, text: String| {
            Response::builder().status(status).header("location", "/elsewhere").body(Body::from(text)).unwrap()
        };
        if uri.path() != "/token" {
            let accepted = !vendor.accepts_nothing && headers.values().any(|value| *value == *vendor.accepted);
            vendor.seen.push(headers);
            return reply(if accepted { 200 } else { 401 }, "{}".to_owned());
        }
        let in_body = body.contains("client_secret=");
        vendor.asked.push((authorization, body));
        if vendor.takes_body_only && !in_body {
            return reply(401, r#"{"error": "invalid_client"}"#.to_owned());
        }
        if let Some((status, text)) = vendor.answers.pop_front() {
            return reply(status, text);
        }
        vendor.issued += 1;
        let token = format!("token-{}", vendor.issued);
        vendor.accepted = format!("Bearer {token}");
        reply(200, format!(r#"{{"access_token": "{token}", "token_type": "Bearer", "expires_in": "3600"}}"#))
    }

    struct World {
        vendor: Shared,
        base: String,
        secret: Arc<Mutex<Result<String, String>>>,
        _server: JoinSet<()>,
    }

    impl World {
        async fn new() -> World {
            let vendor = Shared::default();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let base = format!("http://{}", listener.local_addr().unwrap());
            let router = Router::new().fallback(answer).with_state(vendor.clone());
            let mut server = JoinSet::new();
            server.spawn(async { axum::serve(listener, router).await.unwrap() });
            World { vendor, base, secret: Arc::new(Mutex::new(Ok(SECRET.to_owned()))), _server: server }
        }

        fn credential(&self, scheme: Scheme) -> Result<Credential, ReadError> {
            let secret = self.secret.clone();
            let read = move || secret.lock().unwrap().clone().map(SecretString::from);
            Credential::new(scheme, Arc::new(read), &Reach::default(), SOURCES)
        }

        fn client(&self, scheme: Scheme) -> Client {
            let patience = Patience {
                first_wait: Duration::from_millis(1),
                longest_wait: Duration::from_millis(2),
                ..Patience::default()
            };
            let base_url = Url::parse(&format!("{}/scim/v2", self.base)).unwrap();
            let profile = Profile::named("generic").unwrap();
            let credential = self.credential(scheme).unwrap();
            Client::with_patience(base_url, credential, profile, &Reach::default(), || 0, patience).unwrap()
        }

        fn oauth2(&self) -> Scheme {
            let token_url = Url::parse(&format!("{}/token", self.base)).unwrap();
            let (client_id, scope) = ("us:er".to_owned(), Some("scim read".to_owned()));
            let params = TokenParams::new();
            Scheme::Oauth2 { client_id, token_url, scope, params, proof: ClientProof::Secret }
        }

        fn vendor(&self) -> std::sync::MutexGuard<'_, Vendor> {
            self.vendor.lock().unwrap()
        }

        fn rotate(&self, secret: &str) {
            *self.secret.lock().unwrap() = Ok(secret.to_owned());
        }
    }

    /// A client without a scope.
    fn issued_at(token_url: Url) -> Scheme {
        let (client_id, params) = ("user".to_owned(), TokenParams::new());
        Scheme::Oauth2 { client_id, token_url, scope: None, params, proof: ClientProof::Secret }
    }

    async fn get(client: &Client) -> Result<u16, ReadError> {
        client.get(client.urls().of(&["Users"], &[])).await.map(|reply| reply.status.as_u16())
    }

    #[tokio::test]
    async fn each_scheme_signs_as_its_standard_says() {
        let world = World::new().await;
        for (scheme, header, value) in [
            (Scheme::Bearer, "authorization", "Bearer secret-canary"),
            // RFC 7617 §2: base64 of Aladdin:secret-canary.
            (Scheme::basic("Aladdin").unwrap(), "authorization", "Basic QWxhZGRpbjpzZWNyZXQtY2FuYXJ5"),
            (Scheme::api_key("X-Api-Key", "").unwrap(), "x-api-key", "secret-canary"),
            (Scheme::api_key("Authorization", "GenieKey").unwrap(), "authorization", "GenieKey secret-canary"),
        ] {
            world.vendor().accepted = value.to_owned();
            assert_eq!(get(&world.client(scheme)).await, Ok(200));
            assert_eq!(world.vendor().seen.last().unwrap()[header], value);
        }
        assert!(Scheme::basic("a:b").unwrap_err().contains("colon"));
        assert!(Scheme::api_key("X Api", "").unwrap_err().contains("not the name of a header"));
    }

    #[tokio::test]
    async fn a_secret_rotated_in_the_middle_of_a_walk_is_read_once_more() {
        let world = World::new().await;
        world.vendor().accepted = "Bearer secret-canary".to_owned();
        let mut client = world.client(Scheme::Bearer);
        assert_eq!(get(&client).await, Ok(200));
        world.vendor().accepted = "Bearer next-canary".to_owned();
        assert_eq!(get(&client).await, Ok(401), "not rotated here: refused at once");
        assert_eq!(world.vendor().seen.len(), 2);
        world.rotate("next-canary");
        assert_eq!(get(&client).await, Ok(200));
        assert_eq!(world.vendor().seen.len(), 4);
        // Unreadable while it is replaced: the 401 stays what it is.
        world.vendor().accepted = "Bearer another".to_owned();
        *world.secret.lock().unwrap() = Err("secret file absent".to_owned());
        assert_eq!(get(&client).await, Ok(401));
        assert_eq!(client.reread_secret().unwrap_err().code, ReasonCode::CredentialUnreadable);
    }

    #[tokio::test]
    async fn one_token_serves_all_requests_and_is_renewed_once_when_it_is_revoked() {
        let world = World::new().await;
        let client = world.client(world.oauth2());
        let all = |client: &Client| {
            let client = client.clone();
            async move { futures::future::join_all((0..8).map(|_| get(&client))).await }
        };
        assert_eq!(all(&client).await, vec![Ok(200); 8]);
        assert_eq!(world.vendor().issued, 1);
        let (authorization, body) = world.vendor().asked[0].clone();
        // RFC 6749 §2.3.1: form-encoded, then base64 of us%3Aer:secret-canary.
        assert_eq!(authorization, "Basic dXMlM0FlcjpzZWNyZXQtY2FuYXJ5");
        assert_eq!(body, "grant_type=client_credentials&scope=scim+read");

        world.vendor().accepted = "Bearer revoked".to_owned();
        assert_eq!(all(&client).await, vec![Ok(200); 8], "each request is repeated");
        assert_eq!(world.vendor().issued, 2, "with one new token");

        // A fresh token that is refused too is the end, and not renewed for every request.
        world.vendor().accepts_nothing = true;
        assert_eq!(all(&client).await, vec![Ok(401); 8]);
        assert_eq!(world.vendor().issued, 2);
        let reply = client.get(client.urls().list(Kind::User, &[])).await.unwrap();
        let error = refusal(reply.status, &reply.body, client.profile(), Kind::User);
        assert_eq!((error.code.clone(), error.to_string().lines().count()), (ReasonCode::CredentialsRefused, 1));
    }

    #[tokio::test]
    async fn a_second_401_ends_the_request() {
        let world = World::new().await;
        let client = world.client(world.oauth2());
        world.vendor().accepts_nothing = true;
        assert_eq!(get(&client).await, Ok(401));
        let vendor = world.vendor();
        assert_eq!((vendor.seen.len(), vendor.issued), (2, 2));
    }

    #[tokio::test]
    async fn a_rotated_client_secret_buys_a_new_token() {
        let world = World::new().await;
        let mut client = world.client(world.oauth2());
        assert_eq!(get(&client).await, Ok(200));
        world.rotate("next-canary");
        client.reread_secret().unwrap();
        assert_eq!(get(&client).await, Ok(200));
        assert_eq!(world.vendor().issued, 2);
    }

    #[tokio::test]
    async fn a_server_that_takes_the_client_secret_only_in_the_body_gets_it_there() {
        let world = World::new().await;
        world.vendor().takes_body_only = true;
        let client = world.client(world.oauth2());
        assert_eq!(get(&client).await, Ok(200));
        world.vendor().accepted = "Bearer revoked".to_owned();
        assert_eq!(get(&client).await, Ok(200));
        let vendor = world.vendor();
        assert_eq!(vendor.asked.len(), 3, "the way is remembered");
        assert!(vendor.asked[2].1.ends_with("&client_id=us%3Aer&client_secret=secret-canary"), "{:?}", vendor.asked);
    }

    #[tokio::test]
    async fn a_client_with_a_private_key_sends_a_signed_assertion_and_nothing_else() {
        let world = World::new().await;
        let pem =
            |name: &str| std::fs::read_to_string(format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        world.rotate(&pem("p256.pem"));
        let Scheme::Oauth2 { client_id, token_url, scope, .. } = world.oauth2() else { panic!("it is OAuth2") };
        let proof = ClientProof::Key { id: Some("key-1".to_owned()) };
        let params = TokenParams::new();
        let scheme = Scheme::Oauth2 { client_id, token_url: token_url.clone(), scope, params, proof };
        let mut client = world.client(scheme.clone());
        assert_eq!(get(&client).await, Ok(200));
        let (authorization, body) = world.vendor().asked[0].clone();
        let form: std::collections::BTreeMap<String, String> =
            url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        assert_eq!(authorization, "");
        let expected = ["client_assertion", "client_assertion_type", "client_id", "grant_type", "scope"];
        assert_eq!(form.keys().map(String::as_str).collect::<Vec<_>>(), expected);
        assert_eq!(form["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
        assert_eq!((form["client_id"].as_str(), form["scope"].as_str()), ("us:er", "scim read"));
        let header = jsonwebtoken::decode_header(&form["client_assertion"]).unwrap();
        assert_eq!((header.alg, header.kid.as_deref()), (jsonwebtoken::Algorithm::ES256, Some("key-1")));

        // A rotated key signs the next request, also one of another kind.
        world.rotate(&pem("rsa.pem"));
        assert_eq!(client.reread_secret(), Ok(true));
        assert_eq!(get(&client).await, Ok(200));
        assert!(world.vendor().asked[1].1.contains("client_assertion=eyJ"));

        // The endpoint refuses: one request, because there is no other way to send the assertion.
        world.vendor().answers = vec![(401, r#"{"error": "invalid_client"}"#.to_owned()); 4].into();
        let error = get(&world.client(scheme.clone())).await.unwrap_err().to_string();
        assert!(error.ends_with("; → check client_id, private_key_file, key_id and scope"), "{error}");
        assert_eq!(world.vendor().asked.len(), 3);

        world.rotate("4ca9ary");
        let Err(error) = world.credential(scheme) else { panic!("it is not a key") };
        assert_eq!(error.code, ReasonCode::CredentialUnreadable);
        assert!(!error.to_string().contains("4ca9ary"), "{error}");
    }

    /// OAuth2 with these parameters, and with a refresh token if there is one.
    fn with_params(world: &World, params: &[(&str, &str)], refresh_token: Option<&'static str>) -> Client {
        let Scheme::Oauth2 { client_id, token_url, proof, .. } = world.oauth2() else { panic!("it is OAuth2") };
        let params = params.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let credential = world.credential(Scheme::Oauth2 { client_id, token_url, scope: None, params, proof }).unwrap();
        let credential = match refresh_token {
            Some(token) => credential.with_refresh_token(Arc::new(move || Ok(token.to_owned().into()))).unwrap(),
            None => credential,
        };
        let base_url = Url::parse(&format!("{}/scim/v2", world.base)).unwrap();
        let profile = Profile::named("generic").unwrap();
        Client::with_patience(base_url, credential, profile, &Reach::default(), || 0, Patience::default()).unwrap()
    }

    #[tokio::test]
    async fn a_token_request_carries_the_parameters_of_the_vendor_and_a_refusal_names_the_grant() {
        let world = World::new().await;
        let params = [("account_id", "4cc0unt&x"), ("grant_type", "account_credentials")];
        assert_eq!(get(&with_params(&world, &params, None)).await, Ok(200));
        assert_eq!(world.vendor().asked[0].1, "grant_type=account_credentials&account_id=4cc0unt%26x");
        for (code, expected) in [
            (
                "unsupported_grant_type",
                "400: the token endpoint refused the grant `account_credentials`; \
                 → check token_params, and the grants of this client_id at the vendor",
            ),
            (
                "invalid_request",
                "400: the token endpoint refused the client credentials; \
                 → check client_id, the client secret, scope and token_params",
            ),
        ] {
            world.vendor().answers = vec![(400, format!(r#"{{"error": "{code}"}}"#)); 2].into();
            assert_eq!(get(&with_params(&world, &params, None)).await.unwrap_err().to_string(), expected);
            world.vendor().answers.clear();
        }
    }

    #[tokio::test]
    async fn a_refresh_token_is_sent_for_each_token_and_one_that_is_replaced_is_refused() {
        let world = World::new().await;
        let params = [("grant_type", "refresh_token")];
        let client = with_params(&world, &params, Some("refresh-canary"));
        assert_eq!(get(&client).await, Ok(200));
        assert_eq!(world.vendor().asked[0].1, "grant_type=refresh_token&refresh_token=refresh-canary");
        let issue = |next: &str| format!(r#"{{"access_token": "next", "refresh_token": "{next}"}}"#);
        // The vendor may repeat it.
        world.vendor().answers = vec![(200, issue("refresh-canary"))].into();
        world.vendor().accepted = "Bearer next".to_owned();
        assert_eq!(get(&client).await, Ok(200));
        for (status, answer, expected) in [
            (200, issue("other-canary"), "the token endpoint replaces the refresh token at each use"),
            (
                400,
                r#"{"error": "invalid_grant"}"#.to_owned(),
                "refused the refresh token; → put a new one in its place",
            ),
        ] {
            world.vendor().answers = vec![(status, answer); 2].into();
            let error = get(&with_params(&world, &params, Some("refresh-canary"))).await.unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("canary"), "{error}");
            world.vendor().answers.clear();
        }
        let credential = world.credential(world.oauth2()).unwrap();
        let Err(error) = credential.with_refresh_token(Arc::new(|| Err("no file".to_owned()))) else { panic!("none") };
        assert_eq!((error.code.clone(), error.to_string()), (ReasonCode::CredentialUnreadable, "no file".to_owned()));
    }

    /// It may be that of another directory, so that neither the access token nor what was seen of the old one counts.
    #[tokio::test]
    async fn another_refresh_token_is_another_credential() {
        let world = World::new().await;
        let token = Arc::new(Mutex::new("first"));
        let read = token.clone();
        let Scheme::Oauth2 { client_id, token_url, proof, .. } = world.oauth2() else { panic!("it is OAuth2") };
        let params = [("grant_type".to_owned(), "refresh_token".to_owned())].into();
        let credential = world.credential(Scheme::Oauth2 { client_id, token_url, scope: None, params, proof }).unwrap();
        let credential =
            credential.with_refresh_token(Arc::new(move || Ok((*read.lock().unwrap()).to_owned().into()))).unwrap();
        let asked = async || {
            credential.pass().await.unwrap();
            world.vendor().asked.len()
        };
        assert!(asked().await == 1 && !credential.reread().unwrap() && asked().await == 1);
        *token.lock().unwrap() = "second";
        assert!(credential.reread().unwrap() && asked().await == 2);
        assert!(world.vendor().asked[1].1.ends_with("refresh_token=second"));
        assert!(!credential.reread().unwrap());
    }

    #[tokio::test]
    async fn failures_of_the_token_endpoint_are_told_apart_without_its_words_and_without_the_secret() {
        let invalid = |code: &str| format!(r#"{{"error": "{code}", "error_description": "secret-canary"}}"#);
        for (status, text, tries, code, words) in [
            (
                401,
                invalid("invalid_client"),
                2,
                ReasonCode::CredentialsRefused,
                "check client_id, the client secret and scope",
            ),
            (400, invalid("invalid_scope"), 1, ReasonCode::CredentialsRefused, "check scope"),
            (400, invalid("unauthorized_client"), 2, ReasonCode::CredentialsRefused, "allow it for this client_id"),
            (
                401,
                invalid("unauthorized_client"),
                2,
                ReasonCode::CredentialsRefused,
                "check client_id and the client secret",
            ),
            (403, "<html>secret-canary".to_owned(), 2, ReasonCode::CredentialsRefused, "client credentials"),
            (404, String::new(), 1, ReasonCode::HttpStatus, "check token_url"),
            (302, String::new(), 1, ReasonCode::Redirected, "set token_url to the final address"),
            (200, "<html>secret-canary".to_owned(), 1, ReasonCode::NotATokenResponse, "without an access token"),
            (200, r#"{"access_token": ""}"#.to_owned(), 1, ReasonCode::NotATokenResponse, "no header can carry"),
            (
                200,
                r#"{"access_token": "a", "token_type": "mac"}"#.to_owned(),
                1,
                ReasonCode::NotATokenResponse,
                "neither a bearer token",
            ),
            (
                200,
                " ".repeat(TOKEN_ANSWER_BYTES_MAX + 1),
                1,
                ReasonCode::NotATokenResponse,
                "more than any token needs",
            ),
            (503, String::new(), 4, ReasonCode::Unavailable, "HTTP 503"),
            (429, String::new(), 4, ReasonCode::Unavailable, "rate limit"),
        ] {
            let world = World::new().await;
            world.vendor().answers = vec![(status, text); 4].into();
            let error = get(&world.client(world.oauth2())).await.unwrap_err();
            assert_eq!((error.code.clone(), error.to_string().lines().count()), (code, 1), "{status}: {error}");
            assert!(error.to_string().contains(words) && !error.to_string().contains("canary"), "{status}: {error}");
            let vendor = world.vendor();
            assert_eq!((vendor.asked.len(), vendor.seen.len()), (tries, 0), "{status}");
        }
        let mut world = World::new().await;
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let token_url = Url::parse(&format!("http://{closed}/token")).unwrap();
        let nowhere = issued_at(token_url);
        let error = get(&world.client(nowhere)).await.unwrap_err();
        assert_eq!(
            (error.code.clone(), error.to_string().contains("token_url: nothing listens")),
            (ReasonCode::Unreachable, true),
            "{error}"
        );
        // What fails for a while fails no sync.
        world = World::new().await;
        world.vendor().answers = vec![(503, String::new()); 2].into();
        assert_eq!(get(&world.client(world.oauth2())).await, Ok(200));
    }

    #[tokio::test]
    async fn no_log_line_of_any_level_holds_a_secret_or_a_token() {
        let lines = Lines::default();
        let writer = lines.clone();
        let logging =
            tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
        let _guard = tracing::subscriber::set_default(logging.finish());
        // Where there is just one subscriber, threads without one switch off for all what they come to first.
        let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish());
        let world = World::new().await;
        for takes_body_only in [false, true] {
            world.vendor().takes_body_only = takes_body_only;
            for scheme in
                [Scheme::Bearer, Scheme::basic("user").unwrap(), Scheme::api_key("X-Key", "").unwrap(), world.oauth2()]
            {
                drop(get(&world.client(scheme)).await);
            }
        }
        assert_eq!(world.vendor().issued, 2);
        tracing::info!("logs are collected");
        let text = lines.text();
        assert!(text.contains("logs are collected"));
        // base64 of `user:` and of the start of the form-encoded client.
        for secret in ["canary", "token-1", "token-2", "dXNlcjpz", "dXMlM0Fl"] {
            assert!(!text.contains(secret), "{secret} is in the log");
        }
    }

    #[tokio::test]
    async fn a_token_endpoint_must_not_lead_anywhere_that_a_directory_must_not() {
        let world = World::new().await;
        for (url, words) in [
            ("http://tokens.example/", "only https"),
            ("https://169.254.169.254/", "link-local"),
            ("https://10.0.0.1/", "a private address"),
        ] {
            let token_url = Url::parse(url).unwrap();
            let Err(error) = world.credential(issued_at(token_url)) else { panic!("{url} is accepted") };
            assert!(error.to_string().starts_with("token_url: ") && error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_secret_that_no_header_can_carry_is_refused_but_a_password_may_be_anything() {
        let read = || Ok(SecretString::from("pässword".to_owned()));
        let Err(error) = Credential::new(Scheme::Bearer, Arc::new(read), &Reach::default(), SOURCES) else {
            panic!("accepted")
        };
        assert_eq!(
            (error.code.clone(), error.to_string().contains("ssword")),
            (ReasonCode::CredentialUnreadable, false),
            "{error}"
        );
        assert!(Credential::new(Scheme::basic("user").unwrap(), Arc::new(read), &Reach::default(), SOURCES).is_ok());
    }

    #[test]
    fn the_same_credential_at_the_same_host_has_the_same_key() {
        let key = |scheme: &Scheme, secret: &str, url: &str| {
            let secret = SecretString::from(secret.to_owned());
            let credential =
                Credential::new(scheme.clone(), Arc::new(move || Ok(secret.clone())), &Reach::default(), SOURCES)
                    .unwrap();
            credential.key(&Url::parse(url).unwrap())
        };
        let (bearer, basic) = (Scheme::Bearer, Scheme::basic("user").unwrap());
        let one = key(&bearer, SECRET, "https://vendor.example/a/scim/v2");
        assert_eq!(one, key(&bearer, SECRET, "https://vendor.example:443/b/scim/v2"));
        for other in [
            key(&bearer, "next-canary", "https://vendor.example/a/scim/v2"),
            key(&bearer, SECRET, "https://other.example/a/scim/v2"),
            key(&basic, SECRET, "https://vendor.example/a/scim/v2"),
        ] {
            assert_ne!(one, other);
        }
    }
}
