//! The SCIM endpoints of a simulated directory (RFC 7644).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::life::Directory;
use super::resource::{Group, User};
use super::vendor::Vendor;

pub const BASE_PATH: &str = "/scim/v2";

/// Rows of a page if the request names no `count`.
pub const PAGE_DEFAULT: usize = 20;
/// The most rows of a page, for any `count`.
pub const PAGE_MAX: usize = 100;
pub const USER_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
pub const GROUP_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
pub const PROVIDER_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig";
pub const LIST_SCHEMA: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
pub const ERROR_SCHEMA: &str = "urn:ietf:params:scim:api:messages:2.0:Error";

/// The state of a running directory, which its handle and its request handlers share.
pub struct Shared {
    pub base_url: String,
    /// The only `Authorization` header accepted.
    pub authorization: String,
    pub directory: Mutex<Directory>,
    pub now: fn() -> SystemTime,
    pub page_requests: AtomicU64,
}

impl Shared {
    pub fn directory(&self) -> MutexGuard<'_, Directory> {
        // A panic while it was locked left plain data behind, at worst without one change.
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub fn router(shared: &Arc<Shared>) -> Router {
    let resources = Router::new()
        .route("/ServiceProviderConfig", get(service_provider_config))
        .route("/Users", get(list_users))
        .route("/Users/{id}", get(one_user))
        .route("/Groups", get(list_groups))
        .route("/Groups/{id}", get(one_group));
    Router::new()
        .nest(BASE_PATH, resources)
        .fallback(async || scim_error(StatusCode::NOT_FOUND, None, "No such endpoint."))
        .method_not_allowed_fallback(async || {
            scim_error(StatusCode::METHOD_NOT_ALLOWED, None, "This directory is read-only.")
        })
        .layer(from_fn_with_state(Arc::clone(shared), require_token))
        .with_state(Arc::clone(shared))
}

async fn require_token(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let authorization = request.headers().get(AUTHORIZATION);
    if authorization.is_some_and(|header| header.as_bytes() == shared.authorization.as_bytes()) {
        return next.run(request).await;
    }
    // RFC 6750 section 3.1: no error code if the request has no credential.
    let challenge = match authorization {
        None => r#"Bearer realm="scim""#,
        Some(_) => r#"Bearer realm="scim", error="invalid_token""#,
    };
    let mut response = scim_error(StatusCode::UNAUTHORIZED, None, "The bearer token is missing or not valid.");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

async fn service_provider_config(State(shared): State<Arc<Shared>>) -> Response {
    let unsupported = json!({"supported": false});
    scim(
        StatusCode::OK,
        &json!({
            "schemas": [PROVIDER_SCHEMA],
            "patch": unsupported,
            "bulk": {"supported": false, "maxOperations": 0, "maxPayloadSize": 0},
            "filter": {"supported": false, "maxResults": PAGE_MAX},
            "changePassword": unsupported,
            "sort": unsupported,
            "etag": unsupported,
            "authenticationSchemes": [{
                "type": "oauthbearertoken",
                "name": "OAuth Bearer Token",
                "description": "The token that scimtail demo was started with.",
                "primary": true,
            }],
            "meta": {
                "resourceType": "ServiceProviderConfig",
                "location": format!("{}/ServiceProviderConfig", shared.base_url),
            },
        }),
    )
}

async fn list_users(State(shared): State<Arc<Shared>>, query: Result<Query<ListQuery>, QueryRejection>) -> Response {
    list(&shared, query, |directory, window| {
        let listed = directory.listed();
        let rows = window.of(listed).map(|user| user_resource(directory.vendor, user, &shared.base_url));
        (listed.len(), rows.collect())
    })
}

async fn list_groups(State(shared): State<Arc<Shared>>, query: Result<Query<ListQuery>, QueryRejection>) -> Response {
    list(&shared, query, |directory, window| {
        let rows = window.of(&directory.groups);
        let rows = rows.map(|group| group_resource(directory, group, &shared.base_url));
        (directory.groups.len(), rows.collect())
    })
}

async fn one_user(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let directory = shared.directory();
    match directory.users.iter().find(|user| user.id == id) {
        Some(user) => scim(StatusCode::OK, &user_resource(directory.vendor, user, &shared.base_url)),
        None => not_found("User", &id),
    }
}

async fn one_group(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let directory = shared.directory();
    match directory.groups.iter().find(|group| group.id == id) {
        Some(group) => scim(StatusCode::OK, &group_resource(&directory, group, &shared.base_url)),
        None => not_found("Group", &id),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListQuery {
    pub start_index: Option<i64>,
    pub count: Option<i64>,
    pub filter: Option<String>,
}

impl ListQuery {
    /// RFC 7644 section 3.4.2.4: a start below 1 means 1, a negative count means 0.
    pub fn window(&self) -> Window {
        let start_index = self.start_index.unwrap_or(1).max(1);
        let count = self.count.map(|count| usize::try_from(count).unwrap_or(0));
        Window {
            skip: usize::try_from(start_index - 1).unwrap_or(usize::MAX - 1),
            take: count.unwrap_or(PAGE_DEFAULT).min(PAGE_MAX),
        }
    }
}

/// The part of a list that a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Window {
    pub skip: usize,
    pub take: usize,
}

impl Window {
    fn of<'a, T>(&self, rows: &'a [T]) -> impl Iterator<Item = &'a T> + use<'a, T> {
        rows.iter().skip(self.skip).take(self.take)
    }
}

fn list(
    shared: &Shared,
    query: Result<Query<ListQuery>, QueryRejection>,
    rows: impl FnOnce(&Directory, &Window) -> (usize, Vec<Value>),
) -> Response {
    shared.page_requests.fetch_add(1, Ordering::Relaxed);
    let query = match query {
        Ok(Query(query)) => query,
        Err(rejection) => {
            let detail = rejection.body_text();
            return scim_error(StatusCode::BAD_REQUEST, Some("invalidValue"), &detail);
        }
    };
    // An ignored filter would give a wrong answer.
    if query.filter.is_some() {
        let detail = "This directory does not support filters.";
        return scim_error(StatusCode::BAD_REQUEST, Some("invalidFilter"), detail);
    }
    let window = query.window();
    let (total, rows) = rows(&shared.directory(), &window);
    scim(
        StatusCode::OK,
        &json!({
            "schemas": [LIST_SCHEMA],
            "totalResults": total,
            "startIndex": window.skip + 1,
            "itemsPerPage": rows.len(),
            "Resources": rows,
        }),
    )
}

pub fn user_resource(vendor: Vendor, user: &User, base_url: &str) -> Value {
    let meta = json!({
        "resourceType": "User",
        "created": date_time(user.created),
        "lastModified": date_time(user.last_modified),
    });
    match vendor {
        Vendor::Stripe => json!({
            "schemas": [USER_SCHEMA],
            "id": user.id,
            "userName": user.user_name,
            "displayName": user.display_name(),
            "active": user.active,
            "meta": meta,
        }),
        Vendor::Chargebee => json!({
            "schemas": [USER_SCHEMA],
            "id": user.id,
            "externalId": user.external_id,
            "userName": user.user_name,
            "name": {
                "formatted": user.display_name(),
                "givenName": user.given_name,
                "familyName": user.family_name,
            },
            "displayName": user.display_name(),
            "title": user.title,
            "userType": user.user_type,
            "active": user.active,
            "emails": [{"value": user.user_name, "type": "work", "primary": true}],
            "meta": located(meta, base_url, "Users", &user.id),
        }),
    }
}

pub fn group_resource(directory: &Directory, group: &Group, base_url: &str) -> Value {
    let members: Vec<Value> = group
        .members
        .iter()
        .map(|member| {
            let user = directory.users.iter().find(|user| user.id == member.id);
            json!({
                "value": member.id,
                "display": user.map_or_else(|| member.display_name.clone(), User::display_name),
                "type": "User",
                "$ref": format!("{base_url}/Users/{}", member.id),
            })
        })
        .collect();
    let meta = json!({
        "resourceType": "Group",
        "created": date_time(group.created),
        "lastModified": date_time(group.last_modified),
    });
    json!({
        "schemas": [GROUP_SCHEMA],
        "id": group.id,
        "displayName": group.display_name,
        "members": members,
        "meta": match directory.vendor {
            Vendor::Stripe => meta,
            Vendor::Chargebee => located(meta, base_url, "Groups", &group.id),
        },
    })
}

fn located(mut meta: Value, base_url: &str, endpoint: &str, id: &str) -> Value {
    meta["location"] = json!(format!("{base_url}/{endpoint}/{id}"));
    meta
}

/// RFC 7643 section 2.3.5, with milliseconds.
pub fn date_time(time: Timestamp) -> String {
    format!("{time:.3}")
}

fn not_found(resource_type: &str, id: &str) -> Response {
    let detail = format!("{resource_type} {id} not found.");
    scim_error(StatusCode::NOT_FOUND, None, &detail)
}

fn scim_error(status: StatusCode, scim_type: Option<&str>, detail: &str) -> Response {
    let mut body = json!({
        "schemas": [ERROR_SCHEMA],
        // A string (RFC 7644 section 3.12).
        "status": status.as_str(),
        "detail": detail,
    });
    if let Some(scim_type) = scim_type {
        body["scimType"] = json!(scim_type);
    }
    scim(status, &body)
}

fn scim(status: StatusCode, body: &Value) -> Response {
    let media_type = [(CONTENT_TYPE, "application/scim+json")];
    (status, media_type, body.to_string()).into_response()
}
