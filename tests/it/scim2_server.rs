//! A third-party SCIM server: scim2-server, from `tests/services/requirements.txt`. It keeps its
//! resources in memory, pages by index and by cursor (RFC 9865), and wants a bearer token.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::python::python;
use crate::services::{Supervised, free_port, fresh_directory, http_status};

/// How long the server may take until it answers.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long a request may take.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// The largest page, small enough that a few hundred users need several.
pub const PAGE_SIZE_MAX: usize = 100;
const TOKEN: &str = "token-of-the-tests";

const USER_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const GROUP_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
const PATCH_SCHEMA: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";
const CONFIGURATION_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig";

/// A running server without resources, stopped on drop. Kinds are `Users` and `Groups`.
#[derive(Debug)]
pub struct Scim2Server {
    base_url: String,
    client: Client,
    _supervised: Supervised,
}

impl Scim2Server {
    /// Starts a separate server for the caller.
    ///
    /// # Panics
    /// If it cannot be started, with what to install or with the end of its log.
    pub fn start() -> Self {
        Self::try_start().unwrap_or_else(|error| panic!("cannot start scim2-server: {error:#}"))
    }

    fn try_start() -> Result<Self> {
        let python = python();
        let directory = fresh_directory("scim2-server")?;
        let port = free_port()?;
        // Without this file the server offers everything but cursors, in pages of any size.
        let configuration = directory.path().join("service-provider-config.json");
        fs::write(
            &configuration,
            serde_json::to_vec_pretty(&json!({
                "schemas": [CONFIGURATION_SCHEMA],
                "patch": {"supported": true},
                "bulk": {"supported": false, "maxOperations": 0, "maxPayloadSize": 0},
                "filter": {"supported": true, "maxResults": PAGE_SIZE_MAX},
                "changePassword": {"supported": false},
                "sort": {"supported": true},
                "etag": {"supported": true},
                "pagination": {
                    "cursor": true,
                    "index": true,
                    "defaultPaginationMethod": "index",
                    "defaultPageSize": PAGE_SIZE_MAX,
                    "maxPageSize": PAGE_SIZE_MAX,
                },
            }))?,
        )?;
        let command = [
            python.display().to_string(),
            // As a module: see `python`.
            "-m".into(),
            "scim2_server.testserver.cli".into(),
            "--port".into(),
            port.to_string(),
            "--bearer-token".into(),
            TOKEN.into(),
            "--service-provider-config".into(),
            configuration.display().to_string(),
        ];
        let supervised = Supervised::start("scim2-server", &directory.keep(), command)?;
        supervised.wait_until(READY_MAX, |_log| http_status(port, "/v2/ServiceProviderConfig").is_some())?;
        Ok(Self {
            base_url: format!("http://127.0.0.1:{port}/v2"),
            // The server is on this machine, so no proxy of the environment applies.
            client: Client::builder().no_proxy().timeout(REQUEST_MAX).build()?,
            _supervised: supervised,
        })
    }

    /// The address without `/Users`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The bearer token; requests with none or another are answered with 401.
    pub fn token(&self) -> &str {
        TOKEN
    }

    /// Creates a user (`userName` is required, `schemas` is filled in); returns its id.
    pub async fn create_user(&self, user: Value) -> String {
        self.create("Users", USER_SCHEMA, user).await
    }

    /// Creates a group (`displayName` is required; members are `{"value": id, "type": "User"}`);
    /// returns its id.
    pub async fn create_group(&self, group: Value) -> String {
        self.create("Groups", GROUP_SCHEMA, group).await
    }

    /// Applies operations, such as `[{"op": "replace", "path": "active", "value": false}]`.
    pub async fn patch(&self, kind: &str, id: &str, operations: Value) {
        let body = json!({"schemas": [PATCH_SCHEMA], "Operations": operations});
        let path = format!("{kind}/{id}");
        self.request(Method::PATCH, &path, Some(&body), StatusCode::NO_CONTENT).await;
    }

    /// Deletes a resource. Groups keep a deleted user as a member, as some real servers do.
    pub async fn delete(&self, kind: &str, id: &str) {
        let path = format!("{kind}/{id}");
        self.request(Method::DELETE, &path, None, StatusCode::NO_CONTENT).await;
    }

    async fn create(&self, kind: &str, schema: &str, mut resource: Value) -> String {
        add_schema(&mut resource, schema);
        let body = self.request(Method::POST, kind, Some(&resource), StatusCode::CREATED).await;
        let created: Value = serde_json::from_str(&body).expect("the server answers a creation with JSON");
        created["id"].as_str().expect("a created resource has an id").to_owned()
    }

    /// Sends a request that must be answered with `expected`; returns the body.
    async fn request(&self, method: Method, path: &str, body: Option<&Value>, expected: StatusCode) -> String {
        let what = format!("{method} {path}");
        let mut request = self
            .client
            .request(method, format!("{}/{path}", self.base_url))
            .bearer_auth(TOKEN)
            .header("Content-Type", "application/scim+json");
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response =
            request.send().await.unwrap_or_else(|error| panic!("scim2-server does not answer {what}: {error:?}"));
        let status = response.status();
        let text = response.text().await.unwrap_or_else(|error| panic!("scim2-server breaks off {what}: {error:?}"));
        assert_eq!(status, expected, "scim2-server refuses {what}: {text}");
        text
    }
}

fn add_schema(resource: &mut Value, schema: &str) {
    resource.as_object_mut().expect("a resource is a JSON object").entry("schemas").or_insert_with(|| json!([schema]));
}
