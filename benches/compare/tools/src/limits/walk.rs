//! A walk over all pages, the next one under way while one is read, with as little done to a page as `how` asks for.

use std::borrow::Cow;
use std::hint::black_box;

use bytes::Bytes;
use reqwest::Client;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use xxhash_rust::xxh3::xxh3_64;

use crate::Stopwatch;

const LISTS: [&str; 2] = ["Users", "Groups"];
const ROWS_START: &[u8] = br#""Resources":["#;
/// The head of a page is shorter.
const HEAD_BYTES_MAX: usize = 512;
/// Threads of the runtime: one downloads while one reads.
const THREADS: usize = 2;

/// Length and hash of each row, in order, of one list.
type Rows = Vec<(usize, u64)>;

pub fn measure(base_url: &str, token: &str, page: usize, how: &str) -> Value {
    runtime().block_on(async {
        let vendor = Vendor::connected(base_url, token, page).await;
        let mut learnt = [Rows::new(), Rows::new()];
        if how == "places" {
            for (list, rows) in LISTS.iter().zip(&mut learnt) {
                vendor.walk(list, |body| rows.extend(split(body))).await;
            }
        }
        let stopwatch = Stopwatch::start();
        let (mut bytes, mut rows, mut scanned) = (0, 0, 0);
        for (list, expected) in LISTS.iter().zip(&learnt) {
            let mut place = 0;
            vendor
                .walk(list, |body| {
                    bytes += body.len();
                    rows += match how {
                        "download" => 0,
                        "hash" => black_box(usize::from(xxh3_64(body) == 0)),
                        "raw" => black_box(split(body)).len(),
                        "typed" if *list == "Users" => black_box(typed::<User<'_>>(body)).len(),
                        "typed" => black_box(typed::<Group<'_>>(body)).len(),
                        "places" => {
                            let found = recognised(body, &expected[place..]);
                            place += found;
                            let known = if found == page || place == expected.len() { found } else { 0 };
                            scanned += usize::from(known == 0);
                            known
                        }
                        _ => panic!("no such way to read a page: {how}"),
                    };
                })
                .await;
        }
        stopwatch.stop(json!({"bytes": bytes, "rows": rows, "pages_scanned": scanned}))
    })
}

/// As the way `raw`, for accounts of their own connections, all at once.
pub fn fleet(base_url: &str, token: &str, page: usize, accounts: usize) -> Value {
    runtime().block_on(async {
        let mut vendors = Vec::new();
        for _ in 0..accounts {
            vendors.push(Vendor::connected(base_url, token, page).await);
        }
        let stopwatch = Stopwatch::start();
        let mut walks = JoinSet::new();
        for vendor in vendors {
            walks.spawn(async move {
                let mut rows = 0;
                for list in LISTS {
                    vendor.walk(list, |body| rows += black_box(split(body)).len()).await;
                }
                rows
            });
        }
        let rows: usize = walks.join_all().await.into_iter().sum();
        stopwatch.stop(json!({"rows": rows}))
    })
}

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    runtime.expect("a runtime")
}

struct Vendor {
    client: Client,
    base_url: String,
    token: String,
    page: usize,
}

impl Vendor {
    /// The connection is there before time counts, as that of a service is.
    async fn connected(base_url: &str, token: &str, page: usize) -> Vendor {
        // The load server is on loopback: a proxy of the environment is not for it.
        let client = Client::builder().no_proxy().build().expect("a client");
        let vendor = Vendor { client, base_url: base_url.to_owned(), token: token.to_owned(), page };
        vendor.get("ServiceProviderConfig".to_owned()).await;
        vendor
    }

    fn get(&self, path: String) -> impl Future<Output = Bytes> + Send + 'static {
        let request = self.client.get(format!("{}/{path}", self.base_url)).bearer_auth(&self.token);
        async move {
            let answer = request.send().await.expect("an answer").error_for_status().expect("a good answer");
            answer.bytes().await.expect("the body")
        }
    }

    /// Gives each page of the list to `read`, while the next one comes.
    async fn walk(&self, list: &str, mut read: impl FnMut(&[u8])) {
        let page = self.page;
        let path = |start: usize| format!("{list}?startIndex={start}&count={page}");
        let first = self.get(path(1)).await;
        let total = total(&first);
        let mut starts = (0..total).step_by(page).skip(1).map(|row| row + 1);
        let mut body = first;
        loop {
            let next = starts.next().map(|start| tokio::spawn(self.get(path(start))));
            read(&body);
            let Some(next) = next else { return };
            body = next.await.expect("the page");
        }
    }
}

fn total(body: &[u8]) -> usize {
    let head = String::from_utf8_lossy(&body[..body.len().min(HEAD_BYTES_MAX)]);
    let (_, after) = head.split_once(r#""totalResults":"#).expect("a total");
    after.chars().map_while(|digit| digit.to_digit(10)).fold(0, |total, digit| total * 10 + digit as usize)
}

/// Rows as raw JSON, with their hashes.
fn split(body: &[u8]) -> Rows {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow, rename = "Resources")]
        resources: Vec<&'a RawValue>,
    }
    let list: Raw<'_> = serde_json::from_slice(body).expect("a list");
    list.resources.iter().map(|row| (row.get().len(), xxh3_64(row.get().as_bytes()))).collect()
}

fn typed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Vec<T> {
    #[derive(Deserialize)]
    struct List<T> {
        #[serde(rename = "Resources")]
        resources: Vec<T>,
    }
    let list: List<T> = serde_json::from_slice(body).expect("a list");
    list.resources
}

/// Counts the rows that are, in order, what they were.
fn recognised(body: &[u8], expected: &[(usize, u64)]) -> usize {
    let head = &body[..body.len().min(HEAD_BYTES_MAX)];
    let start = head.windows(ROWS_START.len()).position(|window| window == ROWS_START);
    let mut at = start.expect("rows") + ROWS_START.len();
    let mut count = 0;
    for &(length, hash) in expected {
        let Some(row) = body.get(at..at + length) else { break };
        let follows = body.get(at + length);
        if !matches!(follows, Some(b',' | b']')) || xxh3_64(row) != hash {
            break;
        }
        (at, count) = (at + length + 1, count + 1);
        if follows == Some(&b']') {
            break;
        }
    }
    count
}

/// Borrowed from the page unless it holds an escape. `Cow` alone would be copied inside an `Option`.
#[derive(Deserialize)]
#[expect(dead_code, reason = "reading it is what is measured")]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The attributes that scimtail publishes without a configuration.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "reading them is what is measured")]
struct User<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    user_name: Option<Text<'a>>,
    display_name: Option<Text<'a>>,
    external_id: Option<Text<'a>>,
    user_type: Option<Text<'a>>,
    title: Option<Text<'a>>,
    active: Option<bool>,
    name: Option<Name<'a>>,
    emails: Option<Vec<Email<'a>>>,
    meta: Option<Meta<'a>>,
    #[serde(rename = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User")]
    enterprise: Option<Enterprise<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "reading them is what is measured")]
struct Name<'a> {
    #[serde(borrow)]
    formatted: Option<Text<'a>>,
    given_name: Option<Text<'a>>,
    family_name: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "reading them is what is measured")]
struct Email<'a> {
    #[serde(borrow)]
    value: Option<Text<'a>>,
    r#type: Option<Text<'a>>,
    primary: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "reading them is what is measured")]
struct Meta<'a> {
    #[serde(borrow)]
    created: Option<Text<'a>>,
    last_modified: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "reading them is what is measured")]
struct Enterprise<'a> {
    #[serde(borrow)]
    department: Option<Text<'a>>,
    organization: Option<Text<'a>>,
    division: Option<Text<'a>>,
    cost_center: Option<Text<'a>>,
    employee_number: Option<Text<'a>>,
    manager: Option<Member<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "reading them is what is measured")]
struct Group<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    display_name: Option<Text<'a>>,
    members: Vec<Member<'a>>,
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "reading them is what is measured")]
struct Member<'a> {
    #[serde(borrow)]
    value: Option<Text<'a>>,
    r#type: Option<Text<'a>>,
}
