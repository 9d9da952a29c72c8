//! Properties that hold for every byte that a server may send. Shared with the fuzz targets in `fuzz/`, which bring the
//! bytes.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use scimtail::directory::principal::ENTERPRISE;
use scimtail::directory::reduction::RESOURCE_BYTES_MAX;
use scimtail::directory::{AttributeList, Kind, StateKey};
use scimtail::scim::envelope::{ListPage, PAGE_ROWS_MAX, raw_row, split_list};
use scimtail::scim::members::MEMBERS_MAX;
use scimtail::scim::places::{Places, split_expected};
use scimtail::scim::resource::{Reading, read_resource};
use scimtail::scim::value::{ID_BYTES_MAX, id_of};
use scimtail::scim::{Client, Credential, Patience, Profile, Reach, ReadError, ScimDirectory};
use scimtail::source::{Directory, RawRow};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// Our own words are short; a longer error would hold text of a server.
const ERROR_BYTES_MAX: usize = 400;

/// The real client on this address.
pub fn directory(base_url: Url, token: &str, profile: Profile, patience: Patience, now: fn() -> i64) -> ScimDirectory {
    let credential = Credential::bearer(token.to_owned().into()).expect("a token that a header can carry");
    let client = Client::with_patience(base_url, credential, profile, &Reach::default(), now, patience);
    ScimDirectory::new(client.expect("a client"), AttributeList::default())
}

fn readings() -> [Reading; 3] {
    let list = |paths: &[&str]| AttributeList::new(paths.iter().map(ToString::to_string).collect());
    let parts = list(&["emails.value", "name.givenName", "meta.created", "addresses", "x:y:1.0:User:a"]);
    let whole = list(&["userName", "password", "name", "meta", "emails", ENTERPRISE.trim_end_matches(':'), "groups"]);
    [AttributeList::default(), parts, whole]
        .map(|attributes| Reading { groups_on_user: true, ..Reading::plain(attributes) })
}

/// A list is refused or has rows. A row is refused or is a resource with an id, within every limit, and holds only
/// attributes that were asked for.
pub fn list_response(body: &[u8]) {
    let body = Bytes::copy_from_slice(body);
    let page = split_list(&body);
    split_as_expected(&body, page.as_ref().ok());
    let page = match page {
        Ok(page) => page,
        Err(error) => return in_our_words(&error),
    };
    assert!(page.rows.len() <= PAGE_ROWS_MAX);
    assert!(page.rows.iter().filter_map(|row| row.bytes.sent()).map(Bytes::len).sum::<usize>() <= body.len());
    for (row, kind, reading) in page.rows.iter().flat_map(|row| {
        let readings = readings().into_iter();
        readings.flat_map(move |reading| Kind::BOTH.map(|kind| (row, kind, reading.clone())))
    }) {
        // A row that is not a resource is named, by its id where it has one.
        let bytes = row.bytes.sent().expect("a body brings its rows' bytes");
        let Ok(resource) = read_resource(kind, bytes, &reading) else { continue };
        let principal = &resource.principal;
        assert!(!principal.id.is_empty() && principal.id.len() <= ID_BYTES_MAX);
        assert_eq!(id_of(bytes).as_ref(), Some(&principal.id));
        let key = StateKey::Principal(kind, principal.id.clone());
        assert_eq!(StateKey::parse(&key.text("acme")), Some(key), "a key reads back");

        assert!(resource.members.len() <= MEMBERS_MAX && (kind == Kind::Group || resource.members.is_empty()));
        assert!(resource.members.is_sorted() && resource.members.iter().all(|member| !member.id.is_empty()));

        let texts = [&principal.user_name, &principal.display_name, &principal.external_id];
        let size: usize = texts.into_iter().flatten().map(String::len).sum();
        let values: usize = principal.attributes.iter().map(|(path, value)| path.len() + value.len()).sum();
        assert!(size + values <= RESOURCE_BYTES_MAX);
        for (path, value) in &principal.attributes {
            let below =
                |listed: &String| listed.to_ascii_lowercase().starts_with(&format!("{}.", path.to_ascii_lowercase()));
            let listed = reading.attributes.covers(path) || reading.attributes.paths().iter().any(below);
            assert!(listed, "{path} is not listed");
            assert!(!path.to_ascii_lowercase().starts_with("password"));
            assert!(serde_json::from_str::<IgnoredAny>(value).is_ok(), "{path} is not JSON: {value}");
        }
        let again = read_resource(kind, bytes, &reading).expect("it was read before");
        assert_eq!((&again.principal, &again.members), (principal, &resource.members));
    }
}

/// A page is split the same, or is left to `split_list`, wherever the last walk found its rows.
fn split_as_expected(body: &Bytes, whole: Option<&ListPage>) {
    const ROWS_MAX: usize = 16;
    let objects = (0..body.len()).filter(|at| body[*at] == b'{').filter_map(|at| {
        let mut values = serde_json::Deserializer::from_slice(&body[at..]).into_iter::<&RawValue>();
        values.next()?.ok()?;
        Some(raw_row(body.slice(at..at + values.byte_offset())))
    });
    let objects: Vec<RawRow> = objects.take(ROWS_MAX).collect();
    for first in 0..objects.len() {
        for step in [1, 2] {
            let mut places = Places::default();
            objects.iter().skip(first).step_by(step).for_each(|row| places.push(row));
            if let Some((split, _)) = split_expected(body, &places, 0) {
                assert_eq!(Some(&split), whole);
            }
        }
    }
}

fn in_our_words(error: &ReadError) {
    let text = error.to_string();
    let ours = |c: char| c.is_ascii_graphic() || " →§…".contains(c);
    assert!(text.len() <= ERROR_BYTES_MAX && text.chars().all(ours), "{text}");
}

/// The separator between two bodies.
pub const BETWEEN: &[u8] = b"\n---\n";

/// A client and its connection: setting up TLS takes longer than a walk.
pub struct Pager {
    listener: TcpListener,
    directory: ScimDirectory,
}

impl Pager {
    pub async fn start() -> Pager {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let base_url = Url::parse(&format!("http://{}", listener.local_addr().expect("an address"))).expect("a URL");
        let profile = Profile::named("generic").expect("a profile");
        let patience = Patience {
            tries: 1,
            throttled_tries: 1,
            longest_wait: Duration::ZERO,
            longest_pause: Duration::ZERO,
            ..Patience::default()
        };
        Pager { listener, directory: directory(base_url, "fuzz", profile, patience, || 0) }
    }

    /// Walks lists whose pages are these bodies, the last one for ever: each ends, complete or in an error, after about
    /// as many requests as there are bodies.
    pub async fn paging(&self, bodies: &[u8]) {
        let bodies = pages(bodies);
        tokio::select! {
            () = self.walk() => {}
            () = self.answer(&bodies) => {}
        }
    }

    async fn walk(&self) {
        for kind in Kind::BOTH {
            let mut pages = std::pin::pin!(self.directory.list(kind, None));
            while let Some(page) = pages.next().await {
                match page {
                    Ok(page) => assert!(page.rows.len() <= PAGE_ROWS_MAX),
                    Err(error) => {
                        in_our_words(&error);
                        assert!(pages.next().await.is_none(), "nothing follows an error");
                    }
                }
            }
        }
    }

    /// Never ends by itself.
    async fn answer(&self, bodies: &[Vec<u8>]) {
        let requests_max = 4 * bodies.len() + 20;
        for number in 0.. {
            let (mut stream, _) = self.listener.accept().await.expect("a connection");
            if read_request(&mut stream).await.is_none() {
                continue;
            }
            assert!(number <= requests_max, "asked {number} times for {} pages", bodies.len());
            let body = &bodies[number.min(bodies.len() - 1)];
            // No connection outlives its answer, let alone its walk.
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            // The walk may have ended, and that is not checked here.
            stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap_or(());
        }
    }
}

fn pages(bodies: &[u8]) -> Vec<Vec<u8>> {
    let mut pages = vec![Vec::new()];
    let mut rest = bodies;
    while let Some((first, after)) = rest.split_first() {
        if rest.starts_with(BETWEEN) {
            pages.push(Vec::new());
            rest = &rest[BETWEEN.len()..];
        } else {
            pages.last_mut().expect("there is one").push(*first);
            rest = after;
        }
    }
    pages
}

/// Reads one request, body included; `None` where the client has left.
async fn read_request(stream: &mut TcpStream) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        if stream.read_buf(&mut buffer).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&buffer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(());
        }
    }
}
