//! A vendor's SCIM endpoint, from its shapes. It answers what the vendor documents, and refuses what the vendor refuses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Response, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use scimtail::directory::Kind;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::form_urlencoded;

use super::company::Company;
use super::vendor::{End, Fate, Fields, Look, Paging, Vendor, fill, object};
use crate::hostile::{Question, Target, error};

/// Client id and user name.
pub const LOGIN: &str = "acme";
pub const TOKEN: &str = "token-of-the-replays";
/// Limits apply to so much less time than at the vendor: the suite waits for a second instead of half a minute.
pub const TEMPO: u32 = 30;

/// A running endpoint; it ends when dropped.
pub struct Replay {
    pub address: String,
    pub requests: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

struct Shared {
    vendor: Vendor,
    company: Arc<RwLock<Company>>,
    requests: Arc<Mutex<Vec<String>>>,
    /// When requests were answered, by what is limited.
    answered: Mutex<BTreeMap<String, Vec<Instant>>>,
}

type Answer = (u16, Value);

impl Replay {
    pub async fn start(vendor: Vendor, company: Arc<RwLock<Company>>) -> Replay {
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let shared = Shared { vendor, company, requests: requests.clone(), answered: Mutex::default() };
        let shared = Arc::new(shared);
        let answer = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let shared = shared.clone();
            async move { shared.respond(&method, &uri, &headers, &body) }
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.expect("it serves") });
        Replay { address, requests, _serving: serving }
    }
}

impl Shared {
    fn respond(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
        let vendor = &self.vendor;
        self.requests.lock().unwrap().push(format!("{method} {uri}"));
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut response = Response::builder().header("content-type", &vendor.content_type);
        let target = uri.path_and_query().map_or("", |target| target.as_str());
        let question =
            Question::asked(method.as_str(), target, body, &vendor.base, [0, 1].map(|kind| &*vendor.paths[kind]));
        let [name, value] = &vendor.credential;
        let (status, answer) = if let Some(token) = vendor.token.as_ref().filter(|token| token.path == uri.path()) {
            response = Response::builder().header("content-type", "application/json");
            let form: BTreeMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
            let has = |(name, value): (&String, &String)| form.get(name) == Some(value);
            // RFC 6749 §2.3.1.
            let in_body = form.get("client_id").is_some_and(|id| id == LOGIN)
                && form.get("client_secret").is_some_and(|secret| secret == TOKEN);
            let known =
                if token.client_in_body { in_body } else { header("authorization") == format!("Basic {}", basic()) };
            match (known, token.wants.iter().all(has)) {
                (true, true) => (200, fill(&token.answer, &Fields::from([("token", TOKEN.into())]))),
                (true, false) => (400, json!({ "error": "unsupported_grant_type" })),
                (false, _) => (401, json!({ "error": "invalid_client" })),
            }
        } else if header(name) != value.replace("$token", TOKEN).replace("$basic", &basic()) {
            error(401, None)
        } else if vendor.accept.as_ref().is_some_and(|media| !header("accept").starts_with(media.as_str())) {
            error(406, None)
        } else if let Some(wait) = self.throttled(&question) {
            response = response.header("retry-after", wait.as_secs_f64().ceil().to_string());
            error(429, None)
        } else {
            self.answer(&question)
        };
        response.status(status).body(Body::from(answer.to_string())).expect("a response")
    }

    /// How long to wait, if the limit of this request is used up.
    fn throttled(&self, question: &Question) -> Option<Duration> {
        let of = match question.target {
            Target::List(kind) | Target::Filtered(kind) | Target::Search(kind) => kind.endpoint().to_owned(),
            Target::One(kind) => format!("{}/", kind.endpoint()),
            Target::Config | Target::Unknown => return None,
        };
        let limit = self.vendor.limits.iter().find(|limit| limit.of == of)?;
        let per = Duration::from_secs(limit.seconds) / TEMPO;
        let mut answered = self.answered.lock().unwrap();
        let answered = answered.entry(of).or_default();
        answered.retain(|at| at.elapsed() < per);
        if answered.len() < limit.requests {
            answered.push(Instant::now());
            return None;
        }
        Some(per - answered[0].elapsed().min(per))
    }

    fn answer(&self, question: &Question) -> Answer {
        let vendor = &self.vendor;
        let company = self.company.read().unwrap();
        let said = |name: &str| question.parameters.get(name).map(String::as_str);
        let asked = |[name, value]: &[String; 2]| said(name).is_some_and(|all| all.split(',').any(|one| one == value));
        let members = vendor.members_on.as_ref().is_none_or(asked);
        let selected = |mut row: Value| {
            if let (true, Some(attributes)) = (vendor.selects, said("attributes")) {
                object(&mut row).retain(|key, _| is_selected(attributes, key));
            }
            row
        };
        match (question.target, &question.id) {
            (Target::Config, _) if !vendor.config.is_null() => (200, vendor.config.clone()),
            (Target::List(Kind::Group) | Target::Filtered(Kind::Group) | Target::One(Kind::Group), _)
                if !vendor.groups =>
            {
                error(404, None)
            }
            (Target::List(kind), _) => {
                let rows = rows(vendor, &company, kind, members, None);
                self.page(rows.into_iter().map(selected).collect(), question)
            }
            (Target::Filtered(kind), _) => {
                let filter = said("filter").unwrap_or_default();
                let known = vendor.filters.iter().find_map(|path| {
                    let id = filter.strip_prefix(path.as_str())?.strip_prefix(" eq \"")?.strip_suffix('"')?;
                    Some((path.as_str(), id))
                });
                let Some(by) = known else { return error(400, Some("invalidFilter")) };
                let rows = rows(vendor, &company, kind, members, Some(by));
                self.page(rows.into_iter().map(selected).collect(), question)
            }
            (Target::One(kind), Some(id)) => {
                one(vendor, &company, kind, id, members).map_or_else(|| error(404, None), |row| (200, selected(row)))
            }
            _ => error(404, None),
        }
    }

    fn page(&self, rows: Vec<Value>, question: &Question) -> Answer {
        let vendor = &self.vendor;
        let number = |name: &str| question.parameters.get(name).and_then(|text| text.parse::<usize>().ok());
        let count = number("count").unwrap_or(vendor.count);
        if vendor.refuses_larger && count > vendor.count_max {
            return error(400, Some("invalidValue"));
        }
        let count = count.min(vendor.count_max);
        let cursor = question.parameters.get("cursor");
        let (start, count) = match vendor.paging {
            Paging::Index => (number("startIndex").unwrap_or(1).max(1) - 1, count),
            Paging::Cursor => (cursor.and_then(|cursor| position(cursor)).unwrap_or(0), count),
            Paging::Whole => (0, rows.len()),
        };
        let total = rows.len();
        let page: Vec<Value> = rows.into_iter().skip(start).take(count).collect();
        let end = start + page.len();
        let behind = page.is_empty() && start > 0;
        match vendor.end {
            End::Refused if behind => return error(400, Some("invalidValue")),
            End::NotFound if behind => return error(404, None),
            _ => {}
        }
        let next =
            (vendor.paging == Paging::Cursor && cursor.is_some() && end < total).then(|| format!("{CURSOR}{end}"));
        let mut list = fill(
            &vendor.list,
            &Fields::from([
                ("total", total.into()),
                ("items", page.len().into()),
                ("count", count.into()),
                ("start", (start + 1).into()),
                ("next", next.into()),
                ("rows", if behind && vendor.end == End::Omitted { Value::Null } else { page.into() }),
            ]),
        );
        if behind && vendor.end == End::Null {
            object(&mut list).insert("Resources".to_owned(), Value::Null);
        }
        (200, list)
    }
}

/// RFC 7617 §2.
fn basic() -> String {
    STANDARD.encode(format!("{LOGIN}:{TOKEN}"))
}

/// Cursors hold what a URL has to encode: those of AWS do.
const CURSOR: &str = "a+/=";

fn position(cursor: &str) -> Option<usize> {
    cursor.strip_prefix(CURSOR)?.parse().ok()
}

/// RFC 7644 §3.9: `id` and `schemas` always, and what an attribute or a part of it asks for.
fn is_selected(attributes: &str, key: &str) -> bool {
    let asked = |path: &str| {
        let rest = path.get(..key.len()).filter(|start| start.eq_ignore_ascii_case(key)).map(|_| &path[key.len()..]);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ':']))
    };
    ["id", "schemas"].contains(&key) || attributes.split(',').any(asked)
}

/// The rows of a list; `by`: an attribute and the id that it has to hold.
fn rows(vendor: &Vendor, company: &Company, kind: Kind, members: bool, by: Option<(&str, &str)>) -> Vec<Value> {
    let look = Look { by_id: false, members };
    let is_in = |n: &usize, group: &str| {
        company.teams.iter().any(|(team, it)| vendor.group_id(*team) == group && it.members.contains(n))
    };
    let has = |team: &usize, user: &str| {
        let members = vendor.members(company, &company.teams[team]);
        members.iter().any(|(n, person)| vendor.user_id(*n, person) == user)
    };
    match kind {
        Kind::User => {
            let listed =
                company.people.iter().filter(|(_, person)| matches!(vendor.fate(person), None | Some(Fate::Listed)));
            let listed = listed.filter(|(n, _)| by.is_none_or(|(path, id)| path == "groups.value" && is_in(n, id)));
            listed.map(|(n, _)| vendor.user(company, *n)).collect()
        }
        Kind::Group => {
            let listed = company.teams.keys();
            let listed = listed.filter(|team| by.is_none_or(|(path, id)| path == "members.value" && has(team, id)));
            listed.map(|team| vendor.group(company, *team, look)).collect()
        }
    }
}

fn one(vendor: &Vendor, company: &Company, kind: Kind, id: &str, members: bool) -> Option<Value> {
    match kind {
        Kind::User => {
            let (n, _) = company
                .people
                .iter()
                .find(|(n, person)| vendor.user_id(**n, person) == id && vendor.fate(person) != Some(Fate::Gone))?;
            Some(vendor.user(company, *n))
        }
        Kind::Group => {
            let team = company.teams.keys().find(|team| vendor.group_id(**team) == id)?;
            Some(vendor.group(company, *team, Look { by_id: true, members }))
        }
    }
}
