//! What is learnt about one server and outlives a walk: what it advertised, and the pages that it sent with an ETag.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use url::Url;

use super::advertised::{self, Advertised};
use super::client::Client;
use super::places::Places;
use crate::directory::{Kind, RawHash};

/// Pages remembered of one directory; more than that are read again each time.
const REMEMBERED_MAX: usize = 20_000;

/// What was learnt about one server with one secret. Another secret may lead to another directory, so that it begins
/// with a value of its own. Clones share what they learn.
#[derive(Clone, Default)]
pub struct Learnt {
    advertised: Arc<OnceLock<Option<Advertised>>>,
    /// Pages by their URL, as the server last sent them with an ETag. They live no longer than the client, as the
    /// hashes by which rows are recognised live no longer than their acquisition.
    pages: Arc<Mutex<HashMap<Url, RememberedPage>>>,
    /// Where the last walk of each kind found which row.
    places: Arc<Mutex<[Arc<Places>; 2]>>,
    /// Kinds whose next walk asks for one page after the other.
    serial: Arc<[AtomicBool; 2]>,
}

/// A page without its bytes: its rows by hash.
#[derive(Clone)]
pub(super) struct RememberedPage {
    pub etag: String,
    pub rows: Vec<RawHash>,
    pub total: Option<u64>,
    pub next_cursor: Option<String>,
}

impl Learnt {
    /// What the server advertises, asked once; `None` if it advertises nothing readable. A server in trouble is asked
    /// again with the next walk.
    pub async fn advertised(&self, client: &Client) -> Option<Advertised> {
        if let Some(known) = self.advertised.get() {
            return *known;
        }
        let found = advertised::ask(client).await.ok()?;
        *self.advertised.get_or_init(|| found)
    }

    pub(super) fn page(&self, url: &Url) -> Option<RememberedPage> {
        self.pages().get(url).cloned()
    }

    /// `None`: the server sent this page without an ETag.
    pub(super) fn remember(&self, url: Url, page: Option<RememberedPage>) {
        let mut pages = self.pages();
        match page {
            Some(page) if pages.len() < REMEMBERED_MAX || pages.contains_key(&url) => drop(pages.insert(url, page)),
            _ => drop(pages.remove(&url)),
        }
    }

    /// Where the last walk of this kind found which row; empty before it.
    pub(super) fn places(&self, kind: Kind) -> Arc<Places> {
        Arc::clone(&self.places.lock().unwrap_or_else(PoisonError::into_inner)[kind as usize])
    }

    pub(super) fn remember_places(&self, kind: Kind, places: Places) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)[kind as usize] = Arc::new(places);
    }

    /// Whether the next walk of this kind asks for one page after the other: the last one asked for several at once, and
    /// missed rows.
    pub(super) fn reads_serially(&self, kind: Kind) -> bool {
        self.serial[kind as usize].load(Ordering::Relaxed)
    }

    pub(super) fn read_serially(&self, kind: Kind, serial: bool) {
        self.serial[kind as usize].store(serial, Ordering::Relaxed);
    }

    /// All pages have to be sent again, with their bytes.
    pub(super) fn forget_pages(&self) {
        self.pages().clear();
    }

    fn pages(&self) -> MutexGuard<'_, HashMap<Url, RememberedPage>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
