//! Rows that slide: while page 2 is read, rows of page 1 are deleted, and survivors fall into the gap between two pages
//! (RFC 7644 §3.4.2.4 says so). The server is a third-party one, read by index and by cursor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use futures::StreamExt;
use scimtail::directory::{AttributeList, Kind, Status};
use scimtail::schedule::now_millis;
use scimtail::scim::{Client, Credential, Profile, Reach, ScimDirectory, envelope};
use serde_json::json;

use crate::memory::{World, account};
use crate::scim2_server::Scim2Server;

const USERS: usize = 2_000;
const PAGE: u32 = 100;
/// Users of page 1 that are deleted before page 2 is answered.
const DELETED: usize = 5;

/// Passes everything on, and deletes users of page 1 just before the request for page 2 arrives.
struct Passage {
    server: Scim2Server,
    http: reqwest::Client,
    /// Ids of the first page, while the deletion is still to come.
    armed: Mutex<Option<Vec<String>>>,
    deleted: Mutex<Vec<String>>,
}

async fn pass(State(passage): State<Arc<Passage>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let is_users = request.uri().path() == "/v2/Users";
    let second =
        is_users && (query.contains("startIndex=101") || (query.contains("cursor=") && !query.contains("cursor=&")));
    if second {
        let armed = passage.armed.lock().unwrap().take();
        for id in armed.into_iter().flatten().take(DELETED) {
            passage.server.delete("Users", &id).await;
            passage.deleted.lock().unwrap().push(id);
        }
    }
    let path_and_query = request.uri().path_and_query().unwrap().to_string();
    let url = format!("{}{}", passage.server.base_url().trim_end_matches("/v2"), path_and_query);
    let answer = passage.http.get(url).bearer_auth(passage.server.token()).send().await.unwrap();
    let status = answer.status();
    let body: Bytes = answer.bytes().await.unwrap();
    if is_users && !second && status == 200 {
        let mut armed = passage.armed.lock().unwrap();
        if armed.as_ref().is_some_and(Vec::is_empty) {
            let rows = envelope::split_list(&body).unwrap().rows;
            let id = |bytes| scimtail::scim::value::id_of(bytes).unwrap().to_string();
            *armed = Some(rows.iter().map(|row| id(row.bytes.sent().unwrap())).collect());
        }
    }
    Response::builder().status(status).body(body.into()).unwrap()
}

impl Passage {
    /// The next walk slides.
    fn arm(&self) {
        *self.armed.lock().unwrap() = Some(Vec::new());
    }

    fn take_deleted(&self) -> Vec<String> {
        let mut deleted = std::mem::take(&mut *self.deleted.lock().unwrap());
        deleted.sort();
        deleted
    }
}

async fn passage() -> (Arc<Passage>, String) {
    let server = Scim2Server::start();
    let adding =
        (0..USERS).map(|number| server.create_user(json!({ "userName": format!("user{number:04}"), "active": true })));
    futures::stream::iter(adding).buffer_unordered(4).collect::<Vec<_>>().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let passage = Arc::new(Passage { server, http, armed: Mutex::default(), deleted: Mutex::default() });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v2", listener.local_addr().unwrap());
    let router = Router::new().fallback(pass).with_state(passage.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (passage, base_url)
}

fn directory(base_url: &str, paging: &str) -> ScimDirectory {
    let overrides: toml::Table = toml::from_str(&format!("paging = \"{paging}\"\npage_size = {PAGE}")).unwrap();
    let profile = Profile::layered("generic", &BTreeMap::new(), overrides).unwrap();
    let client = Client::new(
        base_url.parse().unwrap(),
        Credential::bearer("unused".to_owned().into()).unwrap(),
        profile,
        &Reach { allow_private: true, ..Reach::default() },
        now_millis,
    )
    .unwrap();
    ScimDirectory::new(client, AttributeList::default())
}

/// G3: survivors that slid between two pages are not removed, and the state misses no user.
#[tokio::test(flavor = "multi_thread")]
async fn g3_rows_that_slide_between_pages_remove_no_listed_user() {
    let (passage, base_url) = passage().await;
    let mut left = USERS;
    for paging in ["index", "cursor"] {
        let directory = directory(&base_url, paging);
        let mut world = World::new(account("acme"));
        world.account_mut().batch = scimtail::account::BatchBounds::default();

        // The baseline slides already: the missed users are found, because the totals do not fit the rows that were
        // read.
        passage.arm();
        let status = world.sync_with(&directory).await;
        assert_eq!((status.status, world.lines(0)), (Status::Completed, vec![]), "{paging}: {:?}", status.reason);
        let deleted = passage.take_deleted();
        assert_eq!(deleted.len(), DELETED, "{paging}: the walk slid");
        // A user that was listed before its deletion is part of the sync's view.
        assert_eq!(world.known.table(Kind::User).len(), left, "{paging}");
        left -= DELETED;

        let status = world.sync_with(&directory).await;
        let expected: Vec<String> = deleted.iter().map(|id| format!("user.removed {id} (not_found)")).collect();
        assert_eq!((status.status, world.lines(0)), (Status::Completed, expected.clone()), "{paging}");
        assert_eq!(status.users_read, Some(left as i64), "{paging}");

        // A later walk slides: those deleted were still listed, those that slid are found by GET.
        passage.arm();
        let status = world.sync_with(&directory).await;
        let deleted = passage.take_deleted();
        assert_eq!((status.status, deleted.len()), (Status::Completed, DELETED), "{paging}");
        assert_eq!(world.lines(expected.len()), [""; 0], "{paging}: no present user is removed");
        assert_eq!(world.known.table(Kind::User).len(), left, "{paging}");
        left -= DELETED;
        let status = world.sync_with(&directory).await;
        let expected_now: Vec<String> = deleted.iter().map(|id| format!("user.removed {id} (not_found)")).collect();
        assert_eq!((status.status, world.lines(expected.len())), (Status::Completed, expected_now), "{paging}");
        assert_eq!((status.hidden, world.known.table(Kind::User).len()), (0, left), "{paging}");
    }
}
