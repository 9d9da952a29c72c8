//! The faults of the server, and the requests at which they happen.
//!
//! A script is a list of [`Rule`]s; the effects of every rule that fits a request apply, in the script's order. Without
//! a script the server tells the truth.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use scimtail::directory::Kind;
use serde_json::Value;

use super::truth::Truth;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A page of `/Users` or `/Groups`.
    List(Kind),
    /// A page of the same by `POST /.search` (RFC 7644 §3.4.3).
    Search(Kind),
    /// A list with a filter.
    Filtered(Kind),
    /// One resource by its id.
    One(Kind),
    /// `/ServiceProviderConfig`.
    Config,
    Unknown,
}

pub const USERS: Target = Target::List(Kind::User);
pub const GROUPS: Target = Target::List(Kind::Group);
pub const USER: Target = Target::One(Kind::User);
pub const GROUP: Target = Target::One(Kind::Group);

/// The place of a request: numbers count from 1.
#[derive(Clone, Debug)]
pub struct Place {
    pub target: Target,
    /// Of a GET by id.
    pub id: Option<String>,
    /// Walks over this list since the script began.
    pub walk: usize,
    /// Distinct positions asked for in this walk.
    pub page: usize,
    /// Requests for this position in this walk.
    pub attempt: usize,
    /// Requests of any kind since the script began.
    pub number: usize,
}

/// When something goes wrong, and the fault.
#[derive(Clone)]
pub struct Rule {
    target: Option<Target>,
    id: Option<String>,
    walk: Option<usize>,
    page: Option<usize>,
    attempt: Option<usize>,
    since: usize,
    pub effects: Vec<Effect>,
}

/// Every request.
pub fn always() -> Rule {
    Rule { target: None, id: None, walk: None, page: None, attempt: None, since: 0, effects: Vec::new() }
}

pub fn on(target: Target) -> Rule {
    Rule { target: Some(target), ..always() }
}

impl Rule {
    pub fn id(self, id: &str) -> Rule {
        Rule { id: Some(id.to_owned()), ..self }
    }

    pub fn walk(self, walk: usize) -> Rule {
        Rule { walk: Some(walk), ..self }
    }

    pub fn page(self, page: usize) -> Rule {
        Rule { page: Some(page), ..self }
    }

    pub fn attempt(self, attempt: usize) -> Rule {
        Rule { attempt: Some(attempt), ..self }
    }

    /// This request of the script and all that follow.
    pub fn since(self, number: usize) -> Rule {
        Rule { since: number, ..self }
    }

    pub fn then(mut self, effect: Effect) -> Rule {
        self.effects.push(effect);
        self
    }

    pub fn fits(&self, place: &Place) -> bool {
        self.target.is_none_or(|target| target == place.target)
            && (self.id.is_none() || self.id == place.id)
            && self.walk.is_none_or(|walk| walk == place.walk)
            && self.page.is_none_or(|page| page == place.page)
            && self.attempt.is_none_or(|attempt| attempt == place.attempt)
            && self.since <= place.number
    }
}

/// One thing that goes wrong.
#[derive(Clone)]
pub enum Effect {
    // Which rows a page holds.
    /// `startIndex` and `cursor` are ignored: always the first page.
    IgnoreStart,
    /// `count` is ignored: everything from the start on.
    IgnoreCount,
    /// Never more rows than this on a page, whatever the request asked for.
    Cap(usize),
    /// After the end it begins again.
    WrapAround,
    /// Pages begin this many rows earlier than asked for.
    Back(usize),
    /// These ids are in no list.
    LeaveOut(Vec<String>),
    /// A row for every position, for ever.
    Invent(Arc<dyn Fn(usize) -> Value + Send + Sync>),
    /// Once this answer is made, the directory changes.
    Afterwards(Arc<dyn Fn(&mut Truth) + Send + Sync>),

    // What the answer says.
    Status(u16),
    /// 400 with this `scimType` (RFC 7644 §3.12).
    ScimError(&'static str),
    /// Adds a header or replaces it.
    Header(&'static str, String),
    /// Other JSON.
    Edit(Arc<dyn Fn(&mut Value) + Send + Sync>),
    /// The same JSON written differently, or something else.
    Rewrite(Arc<dyn Fn(String) -> Vec<u8> + Send + Sync>),
    /// Compresses the body this many times, and says so.
    Gzip(usize),

    // How it arrives.
    Deliver(Delivery),
}

/// How the bytes of an answer get onto the wire.
#[derive(Clone)]
pub enum Delivery {
    Whole,
    /// Nothing at all, until the client leaves.
    Silence,
    /// The connection is reset after this many bytes of the body; `None`: before the head.
    Reset(Option<usize>),
    /// The connection is closed after this many bytes of the body.
    Cut(usize),
    /// `content-length` is this much off; the connection stays open where it says more than there is.
    LengthOff(i64),
    /// Byte by byte, with a pause between two of them.
    Trickle(Duration),
    /// The head, then the whole body again and again as chunks that never end.
    EndlessBody,
    /// These bytes, then those for ever: no HTTP of this server.
    Endless(Vec<u8>, Vec<u8>),
    /// The whole answer and these bytes behind it.
    Trailed(Vec<u8>),
    /// Not even HTTP.
    Raw(Vec<u8>),
}

impl Effect {
    pub fn invent(row: impl Fn(usize) -> Value + Send + Sync + 'static) -> Effect {
        Effect::Invent(Arc::new(row))
    }

    pub fn afterwards(change: impl Fn(&mut Truth) + Send + Sync + 'static) -> Effect {
        Effect::Afterwards(Arc::new(change))
    }

    pub fn edit(edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Effect {
        Effect::Edit(Arc::new(edit))
    }

    /// Sets one field of the answer, or takes it away where `value` is null.
    pub fn field(name: &'static str, value: Value) -> Effect {
        Effect::edit(move |body| {
            let object = body.as_object_mut().expect("an answer is an object");
            match &value {
                Value::Null => drop(object.remove(name)),
                value => drop(object.insert(name.to_owned(), value.clone())),
            }
        })
    }

    pub fn rewrite(rewrite: impl Fn(String) -> Vec<u8> + Send + Sync + 'static) -> Effect {
        Effect::Rewrite(Arc::new(rewrite))
    }

    pub fn body(body: impl Into<Vec<u8>>) -> Effect {
        let body = body.into();
        Effect::rewrite(move |_| body.clone())
    }

    pub fn content_type(value: &str) -> Effect {
        Effect::Header("content-type", value.to_owned())
    }

    /// A redirect to the URL.
    pub fn redirect(status: u16, location: &str) -> [Effect; 2] {
        [Effect::Status(status), Effect::Header("location", location.to_owned())]
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} walk {:?} page {:?} attempt {:?}:", self.target, self.walk, self.page, self.attempt)?;
        self.effects.iter().try_for_each(|effect| write!(f, " {effect:?}"))
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        match self {
            Delivery::Whole => f.write_str("Whole"),
            Delivery::Silence => f.write_str("Silence"),
            Delivery::Reset(after) => write!(f, "Reset({after:?})"),
            Delivery::Cut(after) => write!(f, "Cut({after})"),
            Delivery::LengthOff(by) => write!(f, "LengthOff({by})"),
            Delivery::Trickle(pause) => write!(f, "Trickle({pause:?})"),
            Delivery::EndlessBody => f.write_str("EndlessBody"),
            Delivery::Endless(first, again) => write!(f, "Endless({:?}, {:?})", start(first), start(again)),
            Delivery::Trailed(behind) => write!(f, "Trailed({:?})", start(behind)),
            Delivery::Raw(bytes) => write!(f, "Raw({:?})", start(bytes)),
        }
    }
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::IgnoreStart => f.write_str("IgnoreStart"),
            Effect::IgnoreCount => f.write_str("IgnoreCount"),
            Effect::Cap(rows) => write!(f, "Cap({rows})"),
            Effect::WrapAround => f.write_str("WrapAround"),
            Effect::Back(rows) => write!(f, "Back({rows})"),
            Effect::LeaveOut(ids) => write!(f, "LeaveOut({ids:?})"),
            Effect::Invent(_) => f.write_str("Invent"),
            Effect::Afterwards(_) => f.write_str("Afterwards"),
            Effect::Status(status) => write!(f, "Status({status})"),
            Effect::ScimError(kind) => write!(f, "ScimError({kind})"),
            Effect::Header(name, value) => write!(f, "Header({name}: {value})"),
            Effect::Edit(_) => f.write_str("Edit"),
            Effect::Rewrite(_) => f.write_str("Rewrite"),
            Effect::Gzip(times) => write!(f, "Gzip({times})"),
            Effect::Deliver(delivery) => write!(f, "{delivery:?}"),
        }
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

/// A gzip stream that decompresses to white space for ever: about one byte for a thousand. The pair is its beginning
/// and the block that is repeated.
pub fn gzip_bomb() -> (Vec<u8>, Vec<u8>) {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let mut megabyte = || {
        let before = encoder.get_ref().len();
        encoder.write_all(&vec![b' '; 1 << 20]).expect("memory can be written");
        // A flush ends the block at a byte: only then can it be repeated.
        encoder.flush().expect("memory can be written");
        encoder.get_ref()[before..].to_vec()
    };
    // From the second one on a block refers to the spaces before it, and is the same each time.
    let first = megabyte();
    let again = megabyte();
    (first, again)
}
