//! A simulated SCIM 2.0 directory that changes when told to, for `scimtail demo`.
//!
//! The demo needs directories that start without credentials, and whose content is known, so that it can be compared with
//! the records in Kafka. Two vendors are imitated, because they differ in what matters to a reader:
//!
//! | | Stripe-like | Chargebee-like |
//! |---|---|---|
//! | attributes of a user | the five that Stripe documents | the core schema's usual ones |
//! | a deactivated user | is gone: GET answers 404 | stays listed with `active: false` |
//! | a removed user's memberships | are dropped | stay in the group's `members`, as on most servers |
//! | renaming a group | not supported | supported |
//! | group names | plain | `CB/<domain>/ROLE/<role>`, `CB/<domain>/BE/<business entity>` |
//!
//! All randomness comes from the seed, and time from the given clock, so that a demo can be repeated. All people are
//! invented, and their domains are reserved for examples.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::Router;
use jiff::Timestamp;
use tokio::net::TcpListener;

use super::server::Server;
use endpoints::{BASE_PATH, Shared};
use life::Directory;

mod endpoints;
mod life;
mod people;
mod resource;
mod vendor;

pub use vendor::Vendor;

/// A present user of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedUser {
    /// SCIM `id`.
    pub id: String,
    /// SCIM `userName`, an e-mail address.
    pub user_name: String,
    /// SCIM `displayName`.
    pub display_name: String,
    /// SCIM `active`.
    pub active: bool,
}

/// A present group of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedGroup {
    /// SCIM `id`.
    pub id: String,
    /// SCIM `displayName`.
    pub display_name: String,
    /// The `id`s of members that still exist, in ascending order. The served list may have more.
    pub members: Vec<String>,
}

/// A running directory. Clones share it; its server stops when the last one is dropped.
#[derive(Clone)]
pub struct SimulatedDirectory {
    shared: Arc<Shared>,
    _server: Arc<Server>,
}

impl SimulatedDirectory {
    /// Populates a directory from `seed` and serves it on a free loopback port to requests with `token` as bearer token.
    /// `meta.created` and `meta.lastModified` are times of the clock `now`.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(vendor: Vendor, token: &str, seed: u64, now: fn() -> SystemTime) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let base_url = format!("http://{}{BASE_PATH}", listener.local_addr()?);
        let shared = shared(vendor, token, seed, base_url, now);
        let server = Server::start(listener, endpoints::router(&shared));
        Ok(Self { shared, _server: Arc::new(server) })
    }

    /// Serves one directory of each vendor on one address, below the path that [`Vendor::name`] is. `public`: the URL
    /// at which clients find that address, without a slash at the end. `tokens`: by vendor, in the order of
    /// [`Vendor::ALL`].
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start_all(
        listen: SocketAddr,
        public: impl FnOnce(SocketAddr) -> String,
        tokens: [&str; Vendor::ALL.len()],
        seed: u64,
        now: fn() -> SystemTime,
    ) -> io::Result<Vec<Self>> {
        let listener = TcpListener::bind(listen).await?;
        let public = public(listener.local_addr()?);
        let mut router = Router::new();
        let mut all = Vec::new();
        for (vendor, token) in Vendor::ALL.into_iter().zip(tokens) {
            let path = format!("/{}", vendor.name());
            let shared = shared(vendor, token, seed, format!("{public}{path}{BASE_PATH}"), now);
            router = router.nest(&path, endpoints::router(&shared));
            all.push(shared);
        }
        let server = Arc::new(Server::start(listener, router));
        Ok(all.into_iter().map(|shared| Self { shared, _server: Arc::clone(&server) }).collect())
    }

    /// The SCIM base URL, `http://127.0.0.1:PORT/scim/v2`, without a slash at the end.
    pub fn base_url(&self) -> String {
        self.shared.base_url.clone()
    }

    /// Makes one random change. Returns the event type by which a reader sees it first, e.g. `user.added`. In a
    /// Stripe-like directory, a deactivated and a removed user are both `user.removed`.
    pub fn change(&self) -> &'static str {
        let now = timestamp((self.shared.now)());
        self.shared.directory().change(now)
    }

    /// Removes all users but the first `left`, at once.
    pub fn remove_all_but(&self, left: usize) {
        let now = timestamp((self.shared.now)());
        self.shared.directory().remove_all_but(left, now);
    }

    /// Adds users, each with one group, at once.
    pub fn add_users(&self, count: usize) {
        let now = timestamp((self.shared.now)());
        self.shared.directory().add_users(count, now);
    }

    /// Leaves so many users out of the list, and out of its total, from now on. A GET still finds them.
    pub fn leave_out(&self, count: usize) {
        self.shared.directory().unlisted = count;
    }

    /// The users, in the order of the list: the truth to compare with.
    pub fn users(&self) -> Vec<SimulatedUser> {
        let directory = self.shared.directory();
        directory
            .users
            .iter()
            .map(|user| SimulatedUser {
                id: user.id.clone(),
                user_name: user.user_name.clone(),
                display_name: user.display_name(),
                active: user.active,
            })
            .collect()
    }

    /// The groups, in the order of the list, with the members that still exist: the truth to compare with.
    pub fn groups(&self) -> Vec<SimulatedGroup> {
        let directory = self.shared.directory();
        directory
            .groups
            .iter()
            .map(|group| SimulatedGroup {
                id: group.id.clone(),
                display_name: group.display_name.clone(),
                members: directory.live_members(group),
            })
            .collect()
    }

    /// Pages of users or groups served so far.
    pub fn page_requests(&self) -> u64 {
        self.shared.page_requests.load(Ordering::Relaxed)
    }
}

fn shared(vendor: Vendor, token: &str, seed: u64, base_url: String, now: fn() -> SystemTime) -> Arc<Shared> {
    Arc::new(Shared {
        base_url,
        authorization: format!("Bearer {token}"),
        directory: Mutex::new(Directory::populated(vendor, seed, timestamp(now()))),
        now,
        page_requests: AtomicU64::new(0),
    })
}

fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
    use serde_json::{Value, json};

    use super::endpoints::*;
    use super::*;

    const TOKEN: &str = "a-token-for-tests";

    fn long_ago() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    async fn started(vendor: Vendor, seed: u64) -> SimulatedDirectory {
        SimulatedDirectory::start(vendor, TOKEN, seed, long_ago).await.unwrap()
    }

    /// A client that keeps its connections and knows the token.
    fn client() -> reqwest::Client {
        reqwest::Client::builder().no_proxy().build().unwrap()
    }

    async fn ask(client: &reqwest::Client, url: String) -> (u16, Value) {
        let answer = client.get(url).bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/scim+json");
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// All rows of `endpoint`, read by pages of 7.
    async fn walk(client: &reqwest::Client, base_url: &str, endpoint: &str) -> Vec<Value> {
        let mut rows = Vec::new();
        loop {
            let start = rows.len() + 1;
            let url = format!("{base_url}/{endpoint}?startIndex={start}&count=7");
            let (status, page) = ask(client, url).await;
            assert_eq!((status, &page["startIndex"]), (200, &json!(start)));
            let resources = page["Resources"].as_array().unwrap();
            assert_eq!(page["itemsPerPage"], resources.len());
            if resources.is_empty() {
                assert_eq!(page["totalResults"], rows.len());
                return rows;
            }
            rows.extend_from_slice(resources);
        }
    }

    fn text(value: &Value) -> String {
        value.as_str().unwrap().to_owned()
    }

    fn listed_members(group: &Value) -> BTreeSet<String> {
        let members = group["members"].as_array().unwrap();
        members.iter().map(|member| text(&member["value"])).collect()
    }

    fn memberships(groups: &[SimulatedGroup]) -> usize {
        groups.iter().map(|group| group.members.len()).sum()
    }

    #[tokio::test]
    async fn each_vendor_starts_with_its_population() {
        for (vendor, expected) in [(Vendor::Stripe, (25, 4, 31)), (Vendor::Chargebee, (40, 9, 77))] {
            for seed in 0..20 {
                let directory = started(vendor, seed).await;
                let (users, groups) = (directory.users(), directory.groups());
                let counts = (users.len(), groups.len(), memberships(&groups));
                assert_eq!(counts, expected, "{vendor:?}, seed {seed}");
            }
        }
    }

    #[tokio::test]
    async fn a_walk_sees_the_truth_after_every_change() {
        let client = client();
        for vendor in [Vendor::Stripe, Vendor::Chargebee] {
            let directory = started(vendor, 7).await;
            let base_url = directory.base_url();
            for _ in 0..60 {
                directory.change();
                let users = walk(&client, &base_url, "Users").await;
                let users: Vec<SimulatedUser> = users
                    .iter()
                    .map(|user| SimulatedUser {
                        id: text(&user["id"]),
                        user_name: text(&user["userName"]),
                        display_name: text(&user["displayName"]),
                        active: user["active"].as_bool().unwrap(),
                    })
                    .collect();
                assert_eq!(users, directory.users());

                let live: BTreeSet<String> = users.into_iter().map(|user| user.id).collect();
                let groups = walk(&client, &base_url, "Groups").await;
                let groups: Vec<SimulatedGroup> = groups
                    .iter()
                    .map(|group| SimulatedGroup {
                        id: text(&group["id"]),
                        display_name: text(&group["displayName"]),
                        members: match vendor {
                            Vendor::Stripe => listed_members(group).into_iter().collect(),
                            Vendor::Chargebee => listed_members(group).intersection(&live).cloned().collect(),
                        },
                    })
                    .collect();
                assert_eq!(groups, directory.groups());
            }
        }
    }

    #[test]
    fn stripe_shows_five_attributes_and_nobody_inactive() {
        let now = timestamp(long_ago());
        let mut directory = Directory::populated(Vendor::Stripe, 1, now);
        for _ in 0..500 {
            directory.change(now);
        }
        for user in &directory.users {
            let resource = user_resource(Vendor::Stripe, user, "http://unused");
            let attributes: Vec<&String> = resource.as_object().unwrap().keys().collect();
            assert_eq!(attributes, ["active", "displayName", "id", "meta", "schemas", "userName"]);
            let meta: Vec<&String> = resource["meta"].as_object().unwrap().keys().collect();
            assert_eq!(meta, ["created", "lastModified", "resourceType"]);
            assert_eq!(resource["active"], true);
            assert!(user.id.starts_with("usr_"));
        }
    }

    #[tokio::test]
    async fn a_removed_user_answers_404_and_is_left_dangling_only_at_chargebee() {
        let client = client();
        for vendor in [Vendor::Stripe, Vendor::Chargebee] {
            let directory = started(vendor, 3).await;
            let base_url = directory.base_url();
            let members_before: BTreeSet<String> = directory.groups().into_iter().flat_map(|g| g.members).collect();
            let removed = loop {
                let before = directory.users();
                if directory.change() == "user.removed" {
                    let after = directory.users();
                    let gone = before.into_iter().find(|user| !after.contains(user)).unwrap();
                    if members_before.contains(&gone.id) {
                        break gone.id;
                    }
                }
            };
            let (status, error) = ask(&client, format!("{base_url}/Users/{removed}")).await;
            assert_eq!((status, &error["status"]), (404, &json!("404")));
            assert_eq!(error["schemas"], json!([ERROR_SCHEMA]));

            let groups = walk(&client, &base_url, "Groups").await;
            let dangling = groups.iter().any(|group| listed_members(group).contains(&removed));
            assert_eq!(dangling, vendor == Vendor::Chargebee, "{vendor:?}");
            let truth = directory.groups();
            assert!(truth.iter().all(|group| !group.members.contains(&removed)));
        }
    }

    #[tokio::test]
    async fn a_resource_is_the_same_by_list_and_by_id() {
        let client = client();
        let directory = started(Vendor::Chargebee, 11).await;
        let base_url = directory.base_url();
        for endpoint in ["Users", "Groups"] {
            for row in walk(&client, &base_url, endpoint).await {
                let id = text(&row["id"]);
                assert_eq!(ask(&client, format!("{base_url}/{endpoint}/{id}")).await, (200, row));
            }
        }
        let names: Vec<String> = directory.groups().into_iter().map(|g| g.display_name).collect();
        assert!(names.contains(&"CB/acme.com/BE/Europe/West".to_owned()));
    }

    #[tokio::test]
    async fn a_wrong_token_is_challenged_and_nothing_else_is_said() {
        let directory = started(Vendor::Stripe, 1).await;
        let url = format!("{}/Users", directory.base_url());
        let bare = client().get(&url).send().await.unwrap();
        let wrong = client().get(&url).bearer_auth("wrong").send().await.unwrap();
        let unknown = format!("{}/Secrets", directory.base_url());
        let elsewhere = client().get(&unknown).send().await.unwrap();
        for (answer, challenge) in [
            (bare, r#"Bearer realm="scim""#),
            (wrong, r#"Bearer realm="scim", error="invalid_token""#),
            (elsewhere, r#"Bearer realm="scim""#),
        ] {
            assert_eq!(answer.status(), 401);
            assert_eq!(answer.headers()[WWW_AUTHENTICATE], challenge);
            let body: Value = answer.json().await.unwrap();
            assert_eq!(body["status"], "401");
        }
        assert_eq!(directory.page_requests(), 0);
    }

    #[tokio::test]
    async fn what_is_not_supported_is_refused_as_scim_says() {
        let directory = started(Vendor::Stripe, 1).await;
        let client = client();
        let base_url = directory.base_url();
        for (path, status, scim_type) in [
            ("Devices", 404, Value::Null),
            ("Groups/unknown", 404, Value::Null),
            ("Users?startIndex=one", 400, json!("invalidValue")),
            ("Users?filter=active%20eq%20true", 400, json!("invalidFilter")),
        ] {
            let (answered, error) = ask(&client, format!("{base_url}/{path}")).await;
            assert_eq!((answered, &error["scimType"]), (status, &scim_type), "{path}");
        }
        let url = format!("{base_url}/Users");
        let post = client.post(url).bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(post.status(), 405);
        let (status, provider) = ask(&client, format!("{base_url}/ServiceProviderConfig")).await;
        assert_eq!((status, &provider["filter"]["supported"]), (200, &json!(false)));
        assert_eq!(directory.page_requests(), 2);
    }

    #[test]
    fn odd_paging_parameters_mean_what_the_rfc_says() {
        for (start_index, count, skip, take) in [
            (None, None, 0, PAGE_DEFAULT),
            (Some(0), Some(5), 0, 5),
            (Some(-3), Some(-1), 0, 0),
            (Some(21), Some(1_000), 20, PAGE_MAX),
            (Some(2), Some(0), 1, 0),
        ] {
            let query = ListQuery { start_index, count, filter: None };
            assert_eq!(query.window(), Window { skip, take });
        }
    }

    #[tokio::test]
    async fn last_modified_follows_the_clock() {
        static SECONDS: AtomicU64 = AtomicU64::new(1_700_000_000);
        fn clock() -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(SECONDS.load(Ordering::Relaxed))
        }
        let directory = SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 5, clock).await.unwrap();
        let newest = || {
            let directory = directory.shared.directory();
            let users = directory.users.iter().map(|user| user.last_modified);
            users.max().unwrap()
        };
        assert!(newest() <= timestamp(clock()));
        SECONDS.fetch_add(3_600, Ordering::Relaxed);
        while directory.change() != "user.updated" {}
        assert_eq!(newest(), timestamp(clock()));
        assert_eq!(date_time(newest()), "2023-11-14T23:13:20.000Z");
    }

    #[tokio::test]
    async fn the_same_seed_gives_the_same_story() {
        for vendor in [Vendor::Stripe, Vendor::Chargebee] {
            let (one, other) = (started(vendor, 42).await, started(vendor, 42).await);
            for _ in 0..200 {
                assert_eq!(one.change(), other.change());
            }
            assert_eq!(one.users(), other.users());
            assert_eq!(one.groups(), other.groups());
            assert_ne!(one.users(), started(vendor, 43).await.users());
        }
    }

    #[tokio::test]
    async fn the_last_clone_takes_the_server_and_its_connections_along() {
        let directory = started(Vendor::Stripe, 1).await;
        let (client, url) = (client(), format!("{}/Users", directory.base_url()));
        let clone = directory.clone();
        drop(directory);
        assert_eq!(ask(&client, url.clone()).await.0, 200);
        drop(clone);
        // The client would reuse its connection, so this succeeds only if that is closed as well.
        for _ in 0..1_000 {
            if client.get(&url).bearer_auth(TOKEN).send().await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("a kept-alive connection is still served");
    }
}
