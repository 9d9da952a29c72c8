//! An OAuth2 server that issues tokens for a client's secret, and the keys by which a broker recognizes them.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub const ISSUER: &str = "https://issuer.example";
pub const AUDIENCE: &str = "kafka";
pub const CLIENT: &str = "scimtail-oauth";
/// Of the client.
pub const SECRET: &str = "canary-of-the-issuer";
/// base64 of `scimtail-oauth:canary-of-the-issuer`.
const BASIC: &str = "Basic c2NpbXRhaWwtb2F1dGg6Y2FuYXJ5LW9mLXRoZS1pc3N1ZXI=";
const KEY_ID: &str = "key-1";

/// What a token says, and whether there is one.
#[derive(Clone, Debug)]
pub struct Policy {
    pub audience: &'static str,
    /// Seconds that a token holds.
    pub life: u64,
    pub available: bool,
}

struct Shared {
    policy: Mutex<Policy>,
    issued: watch::Sender<u64>,
}

pub struct TokenServer {
    shared: Arc<Shared>,
    pub url: String,
    _server: JoinSet<()>,
}

fn key() -> EncodingKey {
    EncodingKey::from_rsa_pem(include_bytes!("../../keys/rsa.pem")).expect("a key")
}

/// The public key, as a JWK Set (RFC 7517 §5).
pub fn key_set() -> String {
    let mut key = Jwk::from_encoding_key(&key(), Algorithm::RS256).expect("an RSA key");
    key.common.key_id = Some(KEY_ID.to_owned());
    json!({"keys": [key]}).to_string()
}

impl TokenServer {
    pub async fn start(life: u64) -> TokenServer {
        let policy = Mutex::new(Policy { audience: AUDIENCE, life, available: true });
        let shared = Arc::new(Shared { policy, issued: watch::Sender::new(0) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/token", listener.local_addr().expect("an address"));
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let mut server = JoinSet::new();
        server.spawn(async { axum::serve(listener, router).await.expect("it serves") });
        TokenServer { shared, url, _server: server }
    }

    pub fn change(&self, change: impl FnOnce(&mut Policy)) {
        change(&mut self.shared.policy.lock().expect("no test panicked"));
    }

    pub fn issued(&self) -> u64 {
        *self.shared.issued.borrow()
    }

    /// Waits until so many tokens have been issued.
    pub async fn reached(&self, count: u64) {
        self.shared.issued.subscribe().wait_for(|issued| *issued >= count).await.expect("the server lives");
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> Response<Body> {
    let reply = |status: u16, text: String| {
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(Body::from(text))
            .expect("ok")
    };
    let policy = shared.policy.lock().expect("no test panicked").clone();
    if !policy.available {
        return reply(503, String::new());
    }
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if authorization != BASIC || !body.contains("grant_type=client_credentials") {
        return reply(401, r#"{"error": "invalid_client"}"#.to_owned());
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_secs();
    let claims = json!({
        "iss": ISSUER, "aud": policy.audience, "sub": CLIENT, "scope": "kafka", "iat": now, "exp": now + policy.life,
    });
    let mut header = Header::new(Algorithm::RS256);
    header.kid = Some(KEY_ID.to_owned());
    let token = jsonwebtoken::encode(&header, &claims, &key()).expect("a token");
    shared.issued.send_modify(|issued| *issued += 1);
    let answer = json!({"access_token": token, "token_type": "Bearer", "expires_in": policy.life});
    reply(200, answer.to_string())
}
