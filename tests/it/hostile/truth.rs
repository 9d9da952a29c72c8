//! The contents of the server, and its answers while no script interferes (RFC 7644, RFC 9865).

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use scimtail::directory::Kind;
use serde_json::{Value, json};
use url::Url;

use super::script::{Effect, Target};
use crate::memory::{MemoryDirectory, Resources};

/// Rows of a page where the request does not say.
const DEFAULT_COUNT: usize = 100;

/// Users and groups, and the build of this server: habits, not faults.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    pub users: Resources,
    pub groups: Resources,
    pub habits: Habits,
}

#[derive(Clone, Copy, Debug)]
pub struct Habits {
    pub cursors: Cursors,
    /// Offers `POST /.search`.
    pub search: bool,
    /// Evaluates filters; else they are ignored, and all users are returned.
    pub filters: bool,
    /// `members` are in the list of groups.
    pub members_in_list: bool,
    /// `members` are in GET of a group.
    pub members_in_get: bool,
    /// `groups` are on users.
    pub groups_on_users: bool,
    /// Answers GET by id; else 405.
    pub get: bool,
}

impl Default for Habits {
    fn default() -> Habits {
        Habits {
            cursors: Cursors::None,
            search: true,
            filters: true,
            members_in_list: true,
            members_in_get: true,
            groups_on_users: false,
            get: true,
        }
    }
}

/// How the server pages with cursors (RFC 9865).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursors {
    /// Not at all: `cursor` is ignored like any unknown parameter.
    None,
    /// Says so in its configuration; without `cursor` it pages by index.
    Advertised,
    /// Says nothing, and returns `nextCursor` unasked.
    Unasked,
    /// Knows nothing else: without `cursor` there is one page and no way on.
    Forced,
}

/// A request, as far as it decides the answer.
#[derive(Clone, Debug)]
pub struct Question {
    pub target: Target,
    pub id: Option<String>,
    /// Of the URL, or of the body of `.search`.
    pub parameters: BTreeMap<String, String>,
}

impl Question {
    /// What a request for `target` (path and query) asks of the endpoint at `base`. `paths`: what the paths of the lists
    /// of users and groups end in.
    pub fn asked(method: &str, target: &str, body: &[u8], base: &str, paths: [&str; 2]) -> Question {
        let unknown = Question { target: Target::Unknown, id: None, parameters: BTreeMap::new() };
        let Ok(url) = Url::parse(&format!("http://host{target}")) else { return unknown };
        let Some(path) = url.path().strip_prefix(base) else { return unknown };
        let mut parameters: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let parts: Vec<String> = path.split('/').skip(1).map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let kind = Kind::BOTH.into_iter().find(|kind| parts.first() == Some(&paths[*kind as usize]));
        let (target, id) = match (method, kind, &parts[..]) {
            ("GET", _, ["ServiceProviderConfig"]) => (Target::Config, None),
            ("GET", Some(kind), [_]) if parameters.contains_key("filter") => (Target::Filtered(kind), None),
            ("GET", Some(kind), [_]) => (Target::List(kind), None),
            ("GET", Some(kind), [_, id]) => (Target::One(kind), Some((*id).to_owned())),
            ("POST", Some(kind), [_, ".search"]) => {
                let body: BTreeMap<String, Value> = serde_json::from_slice(body).unwrap_or_default();
                let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                parameters = body.into_iter().map(|(name, value)| (name, text(value))).collect();
                (Target::Search(kind), None)
            }
            _ => (Target::Unknown, None),
        };
        Question { target, id, parameters }
    }
}

pub type Answer = (u16, Value);

impl Truth {
    /// As [`MemoryDirectory::parse`] reads it.
    pub fn parse(text: &str) -> Truth {
        let parsed = MemoryDirectory::parse(text);
        Truth { users: parsed.users, groups: parsed.groups, habits: Habits::default() }
    }

    fn rows(&self, kind: Kind) -> Vec<Value> {
        match kind {
            Kind::User => self.users.iter().map(|(id, user)| self.user(id, user)).collect(),
            Kind::Group => self.groups.values().map(|group| shown(group, self.habits.members_in_list)).collect(),
        }
    }

    fn user(&self, id: &str, user: &Value) -> Value {
        let mut user = user.clone();
        if self.habits.groups_on_users {
            let groups = self.groups.iter().filter(|(_, group)| has_member(group, id));
            user["groups"] = groups.map(|(id, _)| json!({ "value": id, "type": "direct" })).collect();
        }
        user
    }

    pub fn answer(&self, question: &Question, effects: &[Effect]) -> Answer {
        match question.target {
            Target::List(kind) => (200, self.page(kind, question, effects)),
            Target::Search(_) if !self.habits.search => error(404, None),
            Target::Search(kind) => (200, self.page(kind, question, effects)),
            Target::Filtered(kind) => self.filtered(kind, question, effects),
            Target::One(_) if !self.habits.get => error(405, None),
            Target::One(kind) => {
                let id = question.id.as_deref().unwrap_or_default();
                let found = match kind {
                    Kind::User => self.users.get(id).map(|user| self.user(id, user)),
                    Kind::Group => self.groups.get(id).map(|group| shown(group, self.habits.members_in_get)),
                };
                found.map_or_else(|| error(404, None), |resource| (200, resource))
            }
            Target::Config => (200, self.configuration()),
            Target::Unknown => error(404, None),
        }
    }

    fn configuration(&self) -> Value {
        let mut configuration = json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
            "filter": { "supported": self.habits.filters, "maxResults": 200 },
        });
        if self.habits.cursors == Cursors::Advertised {
            configuration["pagination"] = json!({ "cursor": true, "index": true, "defaultPaginationMethod": "index" });
        }
        configuration
    }

    /// `groups.value eq "…"` and `members.value eq "…"`; everything else is not a filter here.
    fn filtered(&self, kind: Kind, question: &Question, effects: &[Effect]) -> Answer {
        if !self.habits.filters {
            return (200, self.page(kind, question, effects));
        }
        let filter = &question.parameters["filter"];
        let asked = |path: &str| filter.strip_prefix(path)?.strip_prefix(" eq \"")?.strip_suffix('"');
        let mut rows = self.rows(kind);
        match (kind, asked("groups.value"), asked("members.value")) {
            (Kind::User, Some(group), _) => {
                let group = self.groups.get(group);
                rows.retain(|user| group.is_some_and(|group| has_member(group, text(&user["id"]))));
            }
            (Kind::Group, _, Some(member)) => {
                rows.retain(|group| has_member(&self.groups[text(&group["id"])], member));
            }
            _ => return error(400, Some("invalidFilter")),
        }
        (200, self.cut(&rows, question, effects))
    }

    fn page(&self, kind: Kind, question: &Question, effects: &[Effect]) -> Value {
        let mut rows = self.rows(kind);
        for effect in effects {
            if let Effect::LeaveOut(ids) = effect {
                rows.retain(|row| !ids.iter().any(|id| row["id"] == **id));
            }
        }
        self.cut(&rows, question, effects)
    }

    /// The page of `rows` that the question asks for, as the effects change it.
    fn cut(&self, rows: &[Value], question: &Question, effects: &[Effect]) -> Value {
        let number = |name: &str| question.parameters.get(name).and_then(|text| text.parse::<usize>().ok());
        let cursor = question.parameters.get("cursor").filter(|_| self.habits.cursors != Cursors::None);
        let by_cursor = match self.habits.cursors {
            Cursors::None => false,
            Cursors::Advertised | Cursors::Forced => cursor.is_some(),
            // Unasked, as long as the client does not insist on an index.
            Cursors::Unasked => cursor.is_some() || number("startIndex").is_none_or(|start| start <= 1),
        };
        let mut start = match cursor {
            Some(cursor) => position(cursor),
            None if self.habits.cursors == Cursors::Forced => 0,
            None => number("startIndex").unwrap_or(1).max(1) - 1,
        };
        let mut count = number("count").unwrap_or(DEFAULT_COUNT);
        let mut total = rows.len();
        let mut invent = None;
        for effect in effects {
            match effect {
                Effect::IgnoreStart => start = 0,
                Effect::IgnoreCount => count = usize::MAX,
                Effect::Cap(cap) => count = count.min(*cap),
                Effect::WrapAround if start >= rows.len() => start %= rows.len().max(1),
                Effect::Back(by) => start = start.saturating_sub(*by),
                Effect::Invent(row) => invent = Some(row),
                _ => {}
            }
        }
        let page: Vec<Value> = match invent {
            Some(row) => {
                total = start + 2 * count;
                (start..start + count).map(|index| row(index)).collect()
            }
            None => rows.iter().skip(start).take(count).cloned().collect(),
        };
        let end = start + page.len();
        let mut answer = json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
            "totalResults": total,
            "itemsPerPage": page.len(),
            "Resources": page,
        });
        if by_cursor {
            if end < total {
                answer["nextCursor"] = json!(format!("{CURSOR}{end}"));
            }
            if self.habits.cursors == Cursors::Forced {
                // RFC 9865 §2 lets the total go.
                answer.as_object_mut().expect("it is an object").remove("totalResults");
            }
        } else {
            answer["startIndex"] = json!(start + 1);
        }
        answer
    }
}

/// A cursor holds what URLs have to encode: AWS's do.
const CURSOR: &str = "a+/=";

fn position(cursor: &str) -> usize {
    cursor.strip_prefix(CURSOR).and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn shown(group: &Value, members: bool) -> Value {
    let mut group = group.clone();
    if !members && let Some(group) = group.as_object_mut() {
        group.remove("members");
    }
    group
}

fn has_member(group: &Value, id: &str) -> bool {
    group["members"].as_array().is_some_and(|members| members.iter().any(|member| member["value"] == id))
}

pub fn text(value: &Value) -> &str {
    value.as_str().expect("ids are texts")
}

pub fn error(status: u16, scim_type: Option<&str>) -> Answer {
    let mut body = json!({ "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"], "status": status.to_string() });
    if let Some(scim_type) = scim_type {
        body["scimType"] = json!(scim_type);
    }
    (status, body)
}
