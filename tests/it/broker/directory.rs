//! A SCIM directory of any size that costs as little as possible: every page is rendered up front, and serving one is
//! handing a reference-counted buffer to the socket. The server has a thread and a runtime of its own, so that its work
//! is never scheduled among the tasks of the program.
//!
//! Resources are derived from their number alone: two directories of the same size hold the same people. A removed user
//! stays in its groups' `members`, as on most servers.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::oneshot;

const BASE_PATH: &str = "/scim/v2";

/// A running directory; dropping it ends its thread.
pub(crate) struct LargeDirectory {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LargeDirectory {
    /// Renders and serves `users` users of about 1.75 kB and `groups` groups that hold
    /// `memberships` members between them, `page` rows a page (the default and the cap of
    /// `count`). A client has to send `token` as bearer token.
    ///
    /// # Panics
    ///
    /// If a group would have to list a user twice, or a page would have no rows.
    pub(crate) async fn start(users: usize, groups: usize, memberships: usize, page: usize, token: &str) -> Self {
        assert!(page > 0, "a page has rows");
        assert!(
            memberships.div_ceil(groups.max(1)) <= users && (groups > 0 || memberships == 0),
            "a group lists a user once"
        );
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let base_url = format!("http://{address}{BASE_PATH}");
        let authorization = format!("Bearer {token}");

        let (ready, started) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("large-directory".to_owned())
            .spawn(move || {
                let people = (0..users).map(Person::new).collect();
                let directory = Directory::rendered(&base_url, people, groups, memberships, page);
                let shared = Arc::new(Shared { base_url, authorization, page, directory: RwLock::new(directory) });
                let router = router(&shared);
                ready.send(shared).unwrap_or(());
                serve(listener, router, stopped);
            })
            .expect("a thread");
        Self { shared: started.await.expect("the directory is rendered"), stop: Some(stop), thread: Some(thread) }
    }

    /// The SCIM base URL, without a slash at the end.
    pub(crate) fn base_url(&self) -> String {
        self.shared.base_url.clone()
    }

    /// Gives a new title or department to the share `fraction` (0 to 1) of the users, drawn by
    /// `seed`, renders their pages again and returns how many users that were.
    pub(crate) fn churn(&self, fraction: f64, seed: u64) -> usize {
        let mut directory = self.shared.write();
        let users = directory.people.len();
        let count = (users as f64 * fraction).round() as usize;
        let touched = fastrand::Rng::with_seed(seed).choose_multiple(0..users, count);
        for &index in &touched {
            directory.people[index].revision += 1;
            let person = &directory.people[index];
            directory.users.rows[index] = person.rendered(&self.shared.base_url);
        }
        let pages: HashSet<usize> = touched.iter().map(|i| i / self.shared.page).collect();
        for page in pages {
            directory.users.render_page(page, self.shared.page);
        }
        touched.len()
    }

    /// Removes `count` users, evenly spread over the list. Their memberships stay listed.
    ///
    /// # Panics
    ///
    /// If there are fewer users.
    pub(crate) fn remove_users(&self, count: usize) {
        let mut directory = self.shared.write();
        let Directory { people, users, removed, .. } = &mut *directory;
        assert!(count <= people.len(), "no more than there are");
        let positions: HashSet<usize> = (0..count).map(|i| i * people.len() / count).collect();
        removed.extend(positions.iter().map(|&position| people[position].number));
        let mut position = 0..;
        people.retain(|_| !positions.contains(&position.next().expect("endless")));
        let mut position = 0..;
        users.rows.retain(|_| !positions.contains(&position.next().expect("endless")));
        users.render_all(self.shared.page);
        users.index = people.iter().map(Person::id).zip(0..).collect();
    }
}

impl Drop for LargeDirectory {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or(());
        }
    }
}

struct Shared {
    base_url: String,
    /// The only `Authorization` header accepted.
    authorization: String,
    page: usize,
    directory: RwLock<Directory>,
}

impl Shared {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Directory> {
        self.directory.read().expect("no panic while changing")
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Directory> {
        self.directory.write().expect("no panic while changing")
    }
}

// ---------------------------------------------------------------------------------------------
// Content.

struct Directory {
    /// In the order of `users.rows`.
    people: Vec<Person>,
    users: Listing,
    groups: Listing,
    /// Numbers of users that were removed.
    removed: HashSet<usize>,
}

impl Directory {
    fn rendered(base_url: &str, people: Vec<Person>, groups: usize, memberships: usize, page: usize) -> Self {
        let members: Vec<Range<usize>> =
            (0..groups).map(|group| memberships * group / groups..memberships * (group + 1) / groups).collect();
        let users =
            Listing::new(people.iter().map(Person::id), people.iter().map(|person| person.rendered(base_url)), page);
        let groups = Listing::new(
            (0..groups).map(|group| id(GROUP_SPACE, group)),
            members.iter().enumerate().map(|(group, members)| {
                let members = members.clone().map(|member| &people[member % people.len()]);
                rendered_group(base_url, group, members)
            }),
            page,
        );
        Self { people, users, groups, removed: HashSet::new() }
    }
}

/// The rows of one resource type and the pages made of them.
#[derive(Default)]
struct Listing {
    /// Slices of `pages`: a page and a GET share the bytes.
    rows: Vec<Bytes>,
    /// Whole bodies of the pages that start at a multiple of the page size.
    pages: Vec<Bytes>,
    index: HashMap<uuid::Uuid, usize>,
}

impl Listing {
    fn new(ids: impl Iterator<Item = uuid::Uuid>, rows: impl ExactSizeIterator<Item = Bytes>, page: usize) -> Self {
        let mut listing = Self { index: ids.zip(0..).collect(), ..Self::default() };
        let total = rows.len();
        listing.pages = vec![Bytes::new(); total.div_ceil(page)];
        for row in rows {
            listing.rows.push(row);
            // A page is made as soon as it is full: never two copies of everything.
            if listing.rows.len().is_multiple_of(page) || listing.rows.len() == total {
                let last = (listing.rows.len() - 1) / page;
                listing.render_page_of(last, page, total);
            }
        }
        listing
    }

    fn render_all(&mut self, page: usize) {
        self.pages = vec![Bytes::new(); self.rows.len().div_ceil(page)];
        for number in 0..self.pages.len() {
            self.render_page(number, page);
        }
    }

    fn render_page(&mut self, number: usize, page: usize) {
        self.render_page_of(number, page, self.rows.len());
    }

    fn render_page_of(&mut self, number: usize, page: usize, total: usize) {
        let first = number * page;
        let range = first..self.rows.len().min(first + page);
        let (body, places) = list_body(&self.rows[range.clone()], first + 1, total);
        for (row, place) in range.zip(places) {
            self.rows[row] = body.slice(place);
        }
        self.pages[number] = body;
    }

    /// The body for rows from the 1-based `start_index`, `count` at most.
    fn page(&self, start_index: usize, count: usize, page: usize) -> Bytes {
        let first = start_index - 1;
        if count == page && first.is_multiple_of(page) && first / page < self.pages.len() {
            return self.pages[first / page].clone();
        }
        let first = first.min(self.rows.len());
        let end = first.saturating_add(count).min(self.rows.len());
        list_body(&self.rows[first..end], start_index, self.rows.len()).0
    }
}

/// A ListResponse, and where in it each row is.
fn list_body(rows: &[Bytes], start_index: usize, total: usize) -> (Bytes, Vec<Range<usize>>) {
    let head = format!(
        r#"{{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":{total},"startIndex":{start_index},"itemsPerPage":{},"Resources":["#,
        rows.len()
    );
    let size = head.len() + rows.iter().map(|row| row.len() + 1).sum::<usize>() + 2;
    let mut body = Vec::with_capacity(size);
    let mut places = Vec::with_capacity(rows.len());
    body.extend_from_slice(head.as_bytes());
    for (position, row) in rows.iter().enumerate() {
        if position > 0 {
            body.push(b',');
        }
        let start = body.len();
        body.extend_from_slice(row);
        places.push(start..body.len());
    }
    body.extend_from_slice(b"]}");
    (Bytes::from(body), places)
}

/// A user; everything but the revision follows from the number.
struct Person {
    number: usize,
    revision: usize,
}

const USER_SPACE: u64 = 1;
const GROUP_SPACE: u64 = 2;

impl Person {
    fn new(number: usize) -> Self {
        Self { number, revision: 0 }
    }

    fn id(&self) -> uuid::Uuid {
        id(USER_SPACE, self.number)
    }

    fn given_name(&self) -> &'static str {
        at(&GIVEN_NAMES, self.number)
    }

    fn family_name(&self) -> &'static str {
        at(&FAMILY_NAMES, self.number / GIVEN_NAMES.len() + self.number)
    }

    /// About 1.75 kB of JSON.
    fn rendered(&self, base_url: &str) -> Bytes {
        let Self { number, revision } = *self;
        let (id, given, family) = (self.id(), self.given_name(), self.family_name());
        let mailbox = format!("{}.{}{number}", given.to_lowercase(), family.to_lowercase());
        // Revisions change title and department in turn, one of them each time.
        let title = at(&TITLES, number + revision.div_ceil(2));
        let department = at(&DEPARTMENTS, number + revision / 2);
        let (city, region, country, time_zone) = at(&CITIES, number);
        let manager = Self::new(number / 8);
        let manager_id = manager.id();
        let manager_name = format!("{} {}", manager.given_name(), manager.family_name());
        let (day, hour, minute) = (1 + number % 28, number % 24, number % 60);
        let (month, second) = (1 + number % 12, revision % 60);
        let middle = at(&GIVEN_NAMES, number / 3);
        let fax = (number + 5_000) % 10_000;
        let (phone, mobile, cost_centre) = (number % 10_000, number % 1_000, number % 500);
        let (house, postal_code) = (1 + number % 250, 10_000 + number % 90_000);
        // Written in parts only because one format string would be 2 kB long.
        let mut row = String::with_capacity(2048);
        let mut part = |text: std::fmt::Arguments<'_>| row.write_fmt(text).expect("a string takes any length");
        part(format_args!(
            r#"{{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User","urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"],"#
        ));
        part(format_args!(r#""id":"{id}","externalId":"00u{number:017}","userName":"{mailbox}@acme.example","#));
        part(format_args!(
            r#""name":{{"formatted":"{given} {family}","givenName":"{given}","middleName":"{middle}","familyName":"{family}"}},"#
        ));
        part(format_args!(r#""displayName":"{given} {family}","nickName":"{given}","#));
        part(format_args!(r#""profileUrl":"https://directory.acme.example/people/{id}","#));
        part(format_args!(
            r#""title":"{title}","userType":"Employee","preferredLanguage":"en-GB","locale":"en-GB","timezone":"{time_zone}","active":true,"#
        ));
        part(format_args!(
            r#""emails":[{{"value":"{mailbox}@acme.example","type":"work","primary":true}},{{"value":"{mailbox}@home.example.com","type":"home","primary":false}}],"#
        ));
        part(format_args!(
            r#""phoneNumbers":[{{"value":"+44 20 7946 {phone:04}","type":"work"}},{{"value":"+44 7700 900{mobile:03}","type":"mobile"}},{{"value":"+44 20 7946 {fax:04}","type":"fax"}}],"#
        ));
        part(format_args!(
            r#""addresses":[{{"type":"work","primary":true,"streetAddress":"{house} Example Street","locality":"{city}","region":"{region}","postalCode":"{postal_code}","country":"{country}","#
        ));
        part(format_args!(r#""formatted":"{house} Example Street\n{city} {postal_code}\n{region}\n{country}"}}],"#));
        part(format_args!(
            r#""urn:ietf:params:scim:schemas:extension:enterprise:2.0:User":{{"employeeNumber":"{number:08}","costCenter":"CC-{cost_centre:04}","organization":"Acme Example","division":"Operations","department":"{department}","#
        ));
        part(format_args!(
            r#""manager":{{"value":"{manager_id}","$ref":"{base_url}/Users/{manager_id}","displayName":"{manager_name}"}}}},"#
        ));
        part(format_args!(
            r#""meta":{{"resourceType":"User","created":"2024-{month:02}-{day:02}T{hour:02}:{minute:02}:00.000Z","lastModified":"2026-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z","version":"W/\"{number:08x}-{revision}\"","location":"{base_url}/Users/{id}"}}}}"#
        ));
        Bytes::from(row)
    }
}

fn rendered_group<'a>(base_url: &str, number: usize, members: impl Iterator<Item = &'a Person>) -> Bytes {
    let group = id(GROUP_SPACE, number);
    let mut row = String::new();
    write!(
        row,
        r#"{{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"id":"{group}","displayName":"{} team {number}","members":["#,
        at(&DEPARTMENTS, number)
    )
    .expect("a string takes any length");
    for (position, member) in members.enumerate() {
        let comma = if position > 0 { "," } else { "" };
        let (user, given, family) = (member.id(), member.given_name(), member.family_name());
        write!(
            row,
            r#"{comma}{{"value":"{user}","display":"{given} {family}","type":"User","$ref":"{base_url}/Users/{user}"}}"#
        )
        .expect("a string takes any length");
    }
    write!(
        row,
        r#"],"meta":{{"resourceType":"Group","created":"2024-01-15T09:00:00.000Z","lastModified":"2026-01-15T09:00:00.000Z","location":"{base_url}/Groups/{group}"}}}}"#
    )
    .expect("a string takes any length");
    Bytes::from(row)
}

fn at<T: Copy>(values: &[T], number: usize) -> T {
    values[number % values.len()]
}

/// An id that looks random and is not.
fn id(space: u64, number: usize) -> uuid::Uuid {
    let mut rng = fastrand::Rng::with_seed(space << 56 | number as u64);
    uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid()
}

const GIVEN_NAMES: [&str; 16] = [
    "Avery", "Blair", "Casey", "Dana", "Ellis", "Farah", "Gale", "Hanna", "Imre", "Jules", "Kiran", "Lior", "Mika",
    "Noor", "Oona", "Perry",
];
const FAMILY_NAMES: [&str; 16] = [
    "Alderwick",
    "Brackenfell",
    "Cindermoor",
    "Dapplegate",
    "Eskerdale",
    "Fernhollow",
    "Glassbrook",
    "Heatherlow",
    "Inkberry",
    "Juniperson",
    "Kestrelby",
    "Larkmere",
    "Mossgrove",
    "Nettlewood",
    "Oatfield",
    "Pebblestone",
];
const TITLES: [&str; 7] = [
    "Accountant",
    "Analyst",
    "Customer Success Manager",
    "Product Manager",
    "Sales Representative",
    "Software Engineer",
    "Support Engineer",
];
const DEPARTMENTS: [&str; 7] = ["Engineering", "Finance", "Human Resources", "Legal", "Marketing", "Sales", "Support"];
/// City, region, country code, time zone.
const CITIES: [(&str, &str, &str, &str); 5] = [
    ("London", "Greater London", "GB", "Europe/London"),
    ("Berlin", "Berlin", "DE", "Europe/Berlin"),
    ("Chennai", "Tamil Nadu", "IN", "Asia/Kolkata"),
    ("San Francisco", "California", "US", "America/Los_Angeles"),
    ("São Paulo", "São Paulo", "BR", "America/Sao_Paulo"),
];

// ---------------------------------------------------------------------------------------------
// Serving.

fn serve(listener: std::net::TcpListener, router: Router, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // Leaving ends the runtime and with it every connection.
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a socket"));
        tokio::select! {
            served = axum::serve(listener, router) => served.expect("serving goes on"),
            _ = stopped => {}
        }
    });
}

fn router(shared: &Arc<Shared>) -> Router {
    let resources = Router::new()
        .route("/ServiceProviderConfig", get(service_provider_config))
        .route("/Users", get(list_users))
        .route("/Users/{id}", get(one_user))
        .route("/Groups", get(list_groups))
        .route("/Groups/{id}", get(one_group));
    Router::new()
        .nest(BASE_PATH, resources)
        .fallback(async || scim_error(StatusCode::NOT_FOUND, "No such endpoint."))
        .layer(from_fn_with_state(Arc::clone(shared), require_token))
        .with_state(Arc::clone(shared))
}

async fn require_token(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let authorization = request.headers().get(AUTHORIZATION);
    if authorization.is_some_and(|header| header.as_bytes() == shared.authorization.as_bytes()) {
        return next.run(request).await;
    }
    let mut response = scim_error(StatusCode::UNAUTHORIZED, "The bearer token is not valid.");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

async fn service_provider_config(State(shared): State<Arc<Shared>>) -> Response {
    scim(
        StatusCode::OK,
        format!(
            concat!(
                r#"{{"schemas":["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],"#,
                r#""patch":{{"supported":false}},"bulk":{{"supported":false,"maxOperations":0,"maxPayloadSize":0}},"#,
                r#""filter":{{"supported":false,"maxResults":{}}},"changePassword":{{"supported":false}},"#,
                r#""sort":{{"supported":false}},"etag":{{"supported":false}},"#,
                r#""authenticationSchemes":[{{"type":"oauthbearertoken","name":"OAuth Bearer Token","description":"A fixed token."}}]}}"#,
            ),
            shared.page
        )
        .into(),
    )
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListQuery {
    start_index: Option<i64>,
    count: Option<i64>,
}

impl ListQuery {
    fn body(&self, listing: &Listing, page: usize) -> Response {
        let start_index = usize::try_from(self.start_index.unwrap_or(1)).unwrap_or(1);
        let count = self.count.map(|count| usize::try_from(count).unwrap_or(0));
        let count = count.unwrap_or(page).min(page);
        scim(StatusCode::OK, listing.page(start_index.max(1), count, page))
    }
}

async fn list_users(State(shared): State<Arc<Shared>>, Query(query): Query<ListQuery>) -> Response {
    query.body(&shared.read().users, shared.page)
}

async fn list_groups(State(shared): State<Arc<Shared>>, Query(query): Query<ListQuery>) -> Response {
    query.body(&shared.read().groups, shared.page)
}

async fn one_user(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    one(&shared.read().users, &id)
}

async fn one_group(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    one(&shared.read().groups, &id)
}

fn one(listing: &Listing, id: &str) -> Response {
    let row = uuid::Uuid::parse_str(id).ok().and_then(|id| listing.index.get(&id));
    match row {
        Some(&row) => scim(StatusCode::OK, listing.rows[row].clone()),
        None => scim_error(StatusCode::NOT_FOUND, "No such resource."),
    }
}

fn scim_error(status: StatusCode, detail: &str) -> Response {
    let body = format!(
        r#"{{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"{}","detail":"{detail}"}}"#,
        status.as_u16()
    );
    scim(status, body.into())
}

fn scim(status: StatusCode, body: Bytes) -> Response {
    let media_type = [(CONTENT_TYPE, "application/scim+json")];
    (status, media_type, Body::from(body)).into_response()
}
