//! The simulated Okta: paging by `Link`, the list without a filter that leaves deactivated people out, rate limits in
//! headers, errors with their codes, and an authorization server that asks for DPoP if it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};
use base64::Engine;
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use url::Url;

use super::org::Org;

pub const TOKEN: &str = "00QCjAl4MlV-canary";
const ACCESS_TOKEN: &str = "eyJ-access-canary";
const NONCE: &str = "nonce-canary";

/// Status, headers and body of an answer that refuses.
pub type Refusal = (u16, Vec<(&'static str, String)>, String);

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Every request is refused with this status, these headers and this body.
    pub refused: Option<Refusal>,
    /// Users and groups that lists leave out although they are there.
    pub unlisted: BTreeSet<String>,
    /// Members that lists of members leave out.
    pub unlisted_members: BTreeSet<String>,
    /// In so many answers only; `None`: in all.
    pub unlisted_members_in: Option<usize>,
    /// This group and its members are not found by its id, though lists show it.
    pub not_found_by_id: Option<String>,
    /// The pages of groups lead to each other for ever.
    pub endless_groups: bool,
    /// GET by id answers this status, whatever the id.
    pub get_status: Option<u16>,
    /// Pages with a higher limit end in HTTP 500.
    pub slow_above: Option<usize>,
    /// Lists of members of this group end in HTTP 500.
    pub broken_group: Option<String>,
    /// Lists of members of this group are not found, though the group is.
    pub hidden_members_of: Option<String>,
    /// Pages come without their links, as behind a proxy that drops them.
    pub unlinked: bool,
    /// The pages of a group's members lead to each other for ever.
    pub endless_members: bool,
    /// The next page is at another host.
    pub link_elsewhere: bool,
    /// This many requests are answered 429 first.
    pub throttled: usize,
    /// Requests that the headers say a minute has.
    pub rate_limit: u64,
    /// The authorization server asks for DPoP.
    pub dpop: bool,
    /// The API asks for proofs with this nonce (RFC 9449 §9).
    pub api_nonce: Option<&'static str>,
    /// The authorization server answers with this `error`.
    pub token_error: Option<&'static str>,
    /// A filter for a status is answered, and then the person is deactivated.
    pub deactivate_after_filter: Option<String>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub authorization: String,
}

#[derive(Default)]
pub struct Shared {
    pub org: Org,
    pub faults: Faults,
    pub seen: Vec<Seen>,
    used: BTreeMap<String, u64>,
    /// Requests for a token, with and without a proof.
    pub token_requests: usize,
}

/// A running organisation; it ends when dropped.
pub struct SimulatedOkta {
    shared: Arc<Mutex<Shared>>,
    pub base_url: Url,
    _serving: JoinSet<()>,
}

impl SimulatedOkta {
    pub async fn start(org: Org) -> SimulatedOkta {
        let faults = Faults { rate_limit: 100_000, ..Faults::default() };
        let shared = Arc::new(Mutex::new(Shared { org, faults, ..Shared::default() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base_url = Url::parse(&format!("http://{}", listener.local_addr().expect("its address"))).expect("a URL");
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async { axum::serve(listener, router).await.expect("it serves") });
        SimulatedOkta { shared, base_url, _serving: serving }
    }

    pub fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("not poisoned")
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut Org) -> T) -> T {
        change(&mut self.shared().org)
    }

    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared().faults);
    }

    /// Paths that were asked for since the last call.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shared().seen).into_iter().map(|seen| seen.path).collect()
    }
}

type Reply = Response<Body>;

fn reply(status: u16, body: &Value) -> Reply {
    Response::builder().status(status).body(Body::from(body.to_string())).expect("a response")
}

/// An error as Okta writes it.
fn error(status: u16, code: &str, summary: &str) -> Reply {
    reply(
        status,
        &json!({"errorCode": code, "errorSummary": summary, "errorLink": code, "errorId": "oae", "errorCauses": []}),
    )
}

async fn answer(
    State(shared): State<Arc<Mutex<Shared>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Reply {
    let mut shared = shared.lock().expect("not poisoned");
    let host = headers["host"].to_str().expect("a host").to_owned();
    if uri.path() == "/oauth2/v1/token" {
        return token(&mut shared, &headers, &body, &host);
    }
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let text = |name: &str| headers.get(name).map_or("", |value| value.to_str().expect("text")).to_owned();
    let authorization = text("authorization");
    let path = uri.path().to_owned();
    shared.seen.push(Seen { path: path.clone(), query: query.clone(), authorization: authorization.clone() });
    if let Some((status, fields, body)) = &shared.faults.refused {
        let mut refused = Response::builder().status(*status);
        for (name, value) in fields {
            refused = refused.header(*name, value);
        }
        return refused.body(Body::from(body.clone())).expect("a response");
    }
    let allowed = authorization == format!("SSWS {TOKEN}")
        || (!shared.faults.dpop && authorization == format!("Bearer {ACCESS_TOKEN}"))
        || (shared.faults.dpop
            && authorization == format!("DPoP {ACCESS_TOKEN}")
            && is_proof(&text("dpop"), &method, &format!("http://{host}{path}"), true, None));
    if !allowed {
        return error(401, "E0000011", "Invalid token provided");
    }
    if let Some(nonce) = shared.faults.api_nonce
        && !is_proof(&text("dpop"), &method, &format!("http://{host}{path}"), true, Some(nonce))
    {
        let challenge = "DPoP error=\"use_dpop_nonce\", error_description=\"canary of the server\"";
        let again = Response::builder().status(401).header("www-authenticate", challenge).header("dpop-nonce", nonce);
        return again.body(Body::empty()).expect("a response");
    }
    if shared.faults.throttled > 0 {
        shared.faults.throttled -= 1;
        return limited(
            &mut shared,
            &path,
            error(429, "E0000047", "API call exceeded rate limit due to too many requests."),
        );
    }
    let parts: Vec<String> = path
        .trim_start_matches("/api/v1/")
        .split('/')
        .map(|part| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect();
    let answered = match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["users"] => users(&mut shared, &query, &host),
        ["users", id] => one(&shared, shared.org.users.get(id)),
        ["groups"] if shared.faults.endless_groups => {
            let other = if query.get("after").is_some_and(|after| after == "a") { "b" } else { "a" };
            let next = format!("<http://{host}{path}?limit=200&after={other}>; rel=\"next\"");
            let rows: Vec<&Value> = shared.org.groups.values().map(|group| &group.row).collect();
            let body = Body::from(serde_json::to_string(&rows).expect("JSON"));
            Response::builder().status(200).header("link", next).body(body).expect("a response")
        }
        ["groups", id, ..] if shared.faults.not_found_by_id.as_deref() == Some(id) => {
            error(404, "E0000007", "Not found: Resource not found (UserGroup)")
        }
        ["groups"] => {
            let listed = shared.org.groups.iter().filter(|(id, _)| !shared.faults.unlisted.contains(*id));
            let rows = listed.map(|(id, group)| (id.clone(), group.row.clone())).collect();
            page(&shared, rows, &path, &query, &host)
        }
        ["groups", id] => one(&shared, shared.org.groups.get(id).map(|group| &group.row)),
        ["groups", id, "users"] => match shared.org.groups.get(id) {
            None => error(404, "E0000007", "Not found: Resource not found (UserGroup)"),
            Some(_) if shared.faults.hidden_members_of.as_deref() == Some(id) => {
                error(404, "E0000007", "Not found: Resource not found (UserGroup)")
            }
            Some(_) if shared.faults.endless_members => {
                let other = if query.get("after").is_some_and(|after| after == "a") { "b" } else { "a" };
                let next = format!("<http://{host}{path}?limit=200&after={other}>; rel=\"next\"");
                Response::builder().status(200).header("link", next).body(Body::from("[]")).expect("a response")
            }
            Some(_) if shared.faults.broken_group.as_deref() == Some(id) => {
                error(500, "E0000009", "Internal Server Error")
            }
            Some(group) => {
                let leaves_out = shared.faults.unlisted_members_in != Some(0);
                let is_listed = |id: &&String| !leaves_out || !shared.faults.unlisted_members.contains(*id);
                let listed = group.members.iter().filter(is_listed);
                // A large group has members that have no record of their own here.
                let row = |id: &String| shared.org.users.get(id).cloned().unwrap_or_else(|| json!({"id": id}));
                let rows: Vec<(String, Value)> = listed.map(|id| (id.clone(), row(id))).collect();
                if rows.len() < group.members.len() {
                    let left = shared.faults.unlisted_members_in.map(|answers| answers - 1);
                    shared.faults.unlisted_members_in = left;
                }
                page(&shared, rows, &path, &query, &host)
            }
        },
        _ => error(404, "E0000022", "The endpoint does not support the provided HTTP method"),
    };
    limited(&mut shared, &path, answered)
}

/// The list without a filter leaves deactivated people out (airbytehq/airbyte issue 8143).
fn users(shared: &mut Shared, query: &BTreeMap<String, String>, host: &str) -> Reply {
    let wanted = query.get("filter").map(|filter| {
        let status = filter.strip_prefix("status eq \"").and_then(|rest| rest.strip_suffix('"'));
        status.expect("a filter for a status").to_owned()
    });
    let is_listed = |user: &Value| match &wanted {
        Some(wanted) => user["status"] == **wanted,
        None => user["status"] != "DEPROVISIONED",
    };
    let listed = shared.org.users.iter().filter(|(id, user)| is_listed(user) && !shared.faults.unlisted.contains(*id));
    let rows = listed.map(|(id, user)| (id.clone(), user.clone())).collect();
    let answered = page(shared, rows, "/api/v1/users", query, host);
    if wanted.is_some()
        && let Some(id) = shared.faults.deactivate_after_filter.take()
    {
        shared.org.set_status(&id, "DEPROVISIONED");
    }
    answered
}

fn one(shared: &Shared, found: Option<&Value>) -> Reply {
    match (shared.faults.get_status, found) {
        (Some(status), _) => error(status, "E0000009", "Internal Server Error"),
        (None, Some(row)) => reply(200, row),
        (None, None) => error(404, "E0000007", "Not found: Resource not found"),
    }
}

/// A page of at most 200 rows, with the links of developer.okta.com/docs/api/#link-header.
fn page(
    shared: &Shared,
    rows: Vec<(String, Value)>,
    path: &str,
    query: &BTreeMap<String, String>,
    host: &str,
) -> Reply {
    let limit: usize = query["limit"].parse().expect("a number");
    assert!((1..=200).contains(&limit), "{limit} rows are asked for");
    if shared.faults.slow_above.is_some_and(|slow| limit > slow) {
        return error(500, "E0000009", "Internal Server Error");
    }
    let after = query.get("after").cloned().unwrap_or_default();
    let mut rows = rows.into_iter().filter(|(id, _)| *id > after);
    let page: Vec<(String, Value)> = rows.by_ref().take(limit).collect();
    let mut response = Response::builder().status(200).header("link", format!("<http://{host}{path}>; rel=\"self\""));
    if let Some((last, _)) = page.last().filter(|_| rows.next().is_some()) {
        let host = if shared.faults.link_elsewhere { "elsewhere.example" } else { host };
        let mut next = url::form_urlencoded::Serializer::new(String::new());
        next.append_pair("after", last).append_pair("limit", &limit.to_string());
        next.extend_pairs(query.iter().filter(|(name, _)| *name == "filter"));
        response = response.header("link", format!("<http://{host}{path}?{}>; rel=\"next\"", next.finish()));
    }
    if shared.faults.unlinked {
        response = Response::builder().status(200);
    }
    let rows: Vec<Value> = page.into_iter().map(|(_, row)| row).collect();
    response.body(Body::from(Value::from(rows).to_string())).expect("a response")
}

/// With the headers of developer.okta.com/docs/reference/rl-best-practices, in seconds since 1970.
fn limited(shared: &mut Shared, path: &str, mut reply: Reply) -> Reply {
    let limit = shared.faults.rate_limit;
    let used = shared.used.entry(path.split('/').nth(3).unwrap_or_default().to_owned()).or_default();
    *used += 1;
    let reset = jiff::Timestamp::now().as_second() + 30;
    let left = if reply.status().as_u16() == 429 { 0 } else { limit.saturating_sub(*used) };
    for (name, value) in [
        ("x-rate-limit-limit", limit.to_string()),
        ("x-rate-limit-remaining", left.to_string()),
        ("x-rate-limit-reset", reset.to_string()),
    ] {
        reply.headers_mut().insert(name, value.parse().expect("a number"));
    }
    reply
}

/// The org authorization server. Its answers about DPoP are those of okta/okta-sdk-dotnet issue 697 and of
/// `okta/okta-sdk-golang` issue 598: without a proof, without a nonce, and then a token.
fn token(shared: &mut Shared, headers: &HeaderMap, body: &str, host: &str) -> Reply {
    shared.token_requests += 1;
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let refused = |error: &str| reply(400, &json!({"error": error, "error_description": "canary of the server"}));
    if let Some(error) = shared.faults.token_error {
        return refused(error);
    }
    let assertion = &form["client_assertion"];
    let key = include_bytes!("../../keys/p256.pub.pem");
    let mut validation = Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&[format!("http://{host}/oauth2/v1/token")]);
    validation.validate_exp = false;
    let key = DecodingKey::from_ec_pem(key).expect("a key");
    let Ok(claims) = jsonwebtoken::decode::<Value>(assertion, &key, &validation) else {
        return refused("invalid_client");
    };
    if claims.claims["iss"] != "0oa-client" || form["scope"] != "okta.users.read okta.groups.read" {
        return refused("invalid_scope");
    }
    let issued =
        |kind: &str| reply(200, &json!({"access_token": ACCESS_TOKEN, "token_type": kind, "expires_in": 3600}));
    if !shared.faults.dpop {
        return issued("Bearer");
    }
    let proof = headers.get("dpop").map_or("", |proof| proof.to_str().expect("text"));
    let url = format!("http://{host}/oauth2/v1/token");
    if proof.is_empty() || !is_proof(proof, &Method::POST, &url, false, None) {
        return refused("invalid_dpop_proof");
    }
    if !is_proof(proof, &Method::POST, &url, false, Some(NONCE)) {
        let mut again = refused("use_dpop_nonce");
        again.headers_mut().insert("dpop-nonce", NONCE.parse().expect("a header"));
        return again;
    }
    issued("DPoP")
}

/// RFC 9449 §4.3.
fn is_proof(proof: &str, method: &Method, url: &str, with_token: bool, nonce: Option<&str>) -> bool {
    let Ok(header) = jsonwebtoken::decode_header(proof) else { return false };
    let Some(jwk) = header.jwk.filter(|_| header.typ.as_deref() == Some("dpop+jwt")) else { return false };
    let mut validation = Validation::new(header.alg);
    validation.validate_exp = false;
    validation.required_spec_claims.clear();
    let Ok(read) = jsonwebtoken::decode::<Value>(proof, &DecodingKey::from_jwk(&jwk).expect("a key"), &validation)
    else {
        return false;
    };
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, ACCESS_TOKEN.as_bytes());
    let hash = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash);
    let claims = read.claims;
    claims["htm"] == method.as_str()
        && claims["htu"] == url
        && (!with_token || claims["ath"] == *hash)
        && nonce.is_none_or(|nonce| claims["nonce"] == nonce)
}
