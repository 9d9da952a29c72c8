//! A SCIM server that follows its script, down to the bytes: raw HTTP/1.1 over TCP, because it has to give wrong
//! lengths, never end, and fall silent. It writes down every request it gets.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use scimtail::directory::Kind;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use url::Url;

use super::script::{Delivery, Effect, Place, Rule, Target, gzip};
use super::truth::{Question, Truth, error};

const BASE_PATH: &str = "/scim/v2";
/// Of the only token that is accepted. Searched for wherever it must not be.
pub const TOKEN: &str = "canary-7f3a91-hostile";

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub place: Place,
    pub method: String,
    /// As sent, not decoded.
    pub path: String,
    pub parameters: BTreeMap<String, String>,
    pub authorization: Option<String>,
    pub at: Instant,
}

/// A running server; it ends when dropped, open connections included.
pub struct HostileServer {
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    base_url: Url,
    truth: Mutex<Truth>,
    script: Mutex<Script>,
    /// Bytes that the network took, of all answers.
    sent: AtomicU64,
}

#[derive(Default)]
struct Script {
    /// Connections belong to the script under which they began: requests that an earlier sync left on their way do not
    /// count.
    number: usize,
    rules: Vec<Rule>,
    walks: BTreeMap<Target, Walk>,
    requests: Vec<Request>,
}

/// One walk over a list, as far as the server can tell.
#[derive(Default)]
struct Walk {
    number: usize,
    positions: Vec<String>,
    attempts: BTreeMap<String, usize>,
    /// The last answer was one that a client asks again for.
    broken: bool,
}

impl Walk {
    fn step(&mut self, position: &str) -> (usize, usize, usize) {
        let first = matches!(position, "" | "0" | "1");
        let retried = self.broken && self.positions.len() == 1;
        if self.number == 0 || (first && !retried) {
            *self = Walk { number: self.number + 1, ..Walk::default() };
        }
        let page = self.positions.iter().position(|other| other == position).unwrap_or_else(|| {
            self.positions.push(position.to_owned());
            self.positions.len() - 1
        });
        let attempt = self.attempts.entry(position.to_owned()).or_default();
        *attempt += 1;
        (self.number, page + 1, *attempt)
    }
}

impl HostileServer {
    pub async fn start(truth: Truth) -> HostileServer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            base_url: Url::parse(&format!("http://{address}{BASE_PATH}")).expect("a URL"),
            truth: Mutex::new(truth),
            script: Mutex::default(),
            sent: AtomicU64::new(0),
        });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, shared.clone()));
        HostileServer { shared, _serving: serving }
    }

    pub fn base_url(&self) -> Url {
        self.shared.base_url.clone()
    }

    /// A new script; walks and requests are counted from here on, on new connections only.
    pub fn script(&self, rules: impl Into<Vec<Rule>>) {
        let mut script = self.shared.script.lock().unwrap();
        *script = Script { number: script.number + 1, rules: rules.into(), ..Script::default() };
        self.shared.sent.store(0, Ordering::Relaxed);
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut Truth) -> T) -> T {
        change(&mut self.shared.truth.lock().unwrap())
    }

    /// All requests since the script began.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.script.lock().unwrap().requests.clone()
    }

    pub fn requests_for(&self, target: Target) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.place.target == target).collect()
    }

    /// Bytes that the network took since the script began.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }
}

/// A listener that never answers: nothing may ever reach it.
pub struct Elsewhere {
    pub url: String,
    connections: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Elsewhere {
    pub async fn start() -> Elsewhere {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let connections = Arc::new(AtomicUsize::new(0));
        let mut serving = JoinSet::new();
        let counted = connections.clone();
        serving.spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Elsewhere { url, connections, _serving: serving }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        // A connection ends with an error where the client leaves or the script says so.
        connections.spawn(async move { drop(serve(stream, &shared).await) });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let began = shared.script.lock().unwrap().number;
    let mut buffer = Vec::new();
    while let Some(incoming) = read_request(&mut stream, &mut buffer).await? {
        let Some(reply) = shared.reply(incoming, began) else { break };
        if !send(&mut stream, reply, shared).await? {
            break;
        }
    }
    Ok(())
}

struct Incoming {
    method: String,
    target: String,
    authorization: Option<String>,
    body: Vec<u8>,
}

/// The next request of a connection; `None` where the client has left.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Incoming>> {
    let head_end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let header = |name: &str| {
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let end = head_end + 4 + length;
    while buffer.len() < end {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let mut line = head.split(' ');
    let (method, target) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
    let incoming = Incoming {
        method: method.to_owned(),
        target: target.to_owned(),
        authorization: header("authorization"),
        body: buffer[head_end + 4..end].to_vec(),
    };
    buffer.drain(..end);
    Ok(Some(incoming))
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    delivery: Delivery,
}

impl Shared {
    /// Places the request in its walk, writes it down, and makes the answer that the script wants; `None` where the
    /// connection began under an earlier script.
    fn reply(&self, incoming: Incoming, began: usize) -> Option<Reply> {
        let question = Question::asked(
            &incoming.method,
            &incoming.target,
            &incoming.body,
            BASE_PATH,
            Kind::BOTH.map(Kind::endpoint),
        );
        let mut script = self.script.lock().unwrap();
        if script.number != began {
            return None;
        }
        let position = question.parameters.get("cursor").or_else(|| question.parameters.get("startIndex"));
        let position = position.map_or("", String::as_str);
        let listed = matches!(question.target, Target::List(_) | Target::Search(_));
        let (walk, page, attempt) = match listed {
            true => script.walks.entry(question.target).or_default().step(position),
            false => (1, 1, 1),
        };
        let number = script.requests.len() + 1;
        let place = Place { target: question.target, id: question.id.clone(), walk, page, attempt, number };
        script.requests.push(Request {
            place: place.clone(),
            method: incoming.method,
            path: incoming.target.split('?').next().unwrap_or_default().to_owned(),
            parameters: question.parameters.clone(),
            authorization: incoming.authorization.clone(),
            at: Instant::now(),
        });
        let rules = script.rules.iter().filter(|rule| rule.fits(&place));
        let effects: Vec<Effect> = rules.flat_map(|rule| rule.effects.clone()).collect();
        let mut truth = self.truth.lock().unwrap();
        let answer = match incoming.authorization.as_deref().and_then(|text| text.strip_prefix("Bearer ")) {
            Some(TOKEN) => truth.answer(&question, &effects),
            _ => error(401, None),
        };
        let reply = distort(answer, &effects, &mut truth);
        if let Some(walk) = script.walks.get_mut(&question.target) {
            walk.broken = reply.status >= 400 || !matches!(reply.delivery, Delivery::Whole);
        }
        Some(reply)
    }
}

fn distort((status, mut json): (u16, Value), effects: &[Effect], truth: &mut Truth) -> Reply {
    let headers = vec![("content-type", "application/scim+json".to_owned())];
    let mut reply = Reply { status, headers, body: Vec::new(), delivery: Delivery::Whole };
    for effect in effects {
        match effect {
            Effect::Status(status) => (reply.status, json) = error(*status, None),
            Effect::ScimError(kind) => (reply.status, json) = error(400, Some(kind)),
            Effect::Edit(edit) => edit(&mut json),
            Effect::Afterwards(change) => change(truth),
            _ => {}
        }
    }
    reply.body = json.to_string().into_bytes();
    for effect in effects {
        match effect {
            Effect::Rewrite(rewrite) => reply.body = rewrite(String::from_utf8_lossy(&reply.body).into_owned()),
            Effect::Gzip(times) => {
                reply.body = (0..*times).fold(reply.body, |body, _| gzip(&body));
                reply.headers.push(("content-encoding", vec!["gzip"; *times].join(", ")));
            }
            Effect::Header(name, value) => {
                reply.headers.retain(|(other, _)| other != name);
                reply.headers.push((name, value.clone()));
            }
            Effect::Deliver(delivery) => reply.delivery = delivery.clone(),
            _ => {}
        }
    }
    reply
}

/// Puts an answer onto the wire; returns whether the connection stays open.
async fn send(stream: &mut TcpStream, reply: Reply, shared: &Shared) -> io::Result<bool> {
    let Reply { status, headers, body, delivery } = reply;
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = |framing: String| format!("HTTP/1.1 {status} Scripted\r\n{lines}{framing}\r\n\r\n").into_bytes();
    let whole = |length: i64| [head(format!("content-length: {length}")), body.clone()].concat();
    let true_length = body.len() as i64;
    let mut wire = Wire { stream, shared };
    match delivery {
        Delivery::Whole => wire.write(&whole(true_length)).await.map(|()| true),
        Delivery::Silence => wire.wait_for_the_end().await,
        Delivery::Reset(after) => {
            if let Some(after) = after {
                let bytes = whole(true_length);
                wire.write(&bytes[..bytes.len() - body.len() + after.min(body.len())]).await?;
            }
            wire.stream.set_zero_linger()?;
            Ok(false)
        }
        Delivery::Cut(after) => {
            let bytes = whole(true_length);
            wire.write(&bytes[..bytes.len() - body.len() + after.min(body.len())]).await?;
            Ok(false)
        }
        Delivery::LengthOff(by) => {
            wire.write(&whole(true_length + by)).await?;
            match by > 0 {
                true => wire.wait_for_the_end().await,
                false => Ok(true),
            }
        }
        Delivery::Trickle(pause) => {
            for byte in whole(true_length) {
                wire.write(&[byte]).await?;
                tokio::time::sleep(pause).await;
            }
            Ok(true)
        }
        Delivery::EndlessBody => {
            let chunk = [format!("{:x}\r\n", body.len()).into_bytes(), body.clone(), b"\r\n".to_vec()].concat();
            wire.for_ever(&head("transfer-encoding: chunked".to_owned()), &chunk).await
        }
        Delivery::Endless(first, again) => wire.for_ever(&first, &again).await,
        Delivery::Trailed(behind) => {
            let bytes = [whole(true_length), behind].concat();
            wire.write(&bytes).await.map(|()| true)
        }
        Delivery::Raw(bytes) => wire.write(&bytes).await.map(|()| false),
    }
}

struct Wire<'a> {
    stream: &'a mut TcpStream,
    shared: &'a Shared,
}

impl Wire<'_> {
    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.stream.write(bytes).await?;
            self.shared.sent.fetch_add(written as u64, Ordering::Relaxed);
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Ends with an error if the client gives up.
    async fn for_ever(&mut self, first: &[u8], again: &[u8]) -> io::Result<bool> {
        self.write(first).await?;
        // Larger writes: the client's patience is to be tested, not the machine's.
        let again = again.repeat((1 << 16) / again.len().max(1) + 1);
        loop {
            self.write(&again).await?;
        }
    }

    async fn wait_for_the_end(&mut self) -> io::Result<bool> {
        let mut ignored = [0; 1024];
        while self.stream.read(&mut ignored).await? > 0 {}
        Ok(false)
    }
}
