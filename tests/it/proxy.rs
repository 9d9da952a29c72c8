//! A proxy between clients and a broker that understands just enough of Kafka's protocol to withhold requests of one
//! kind, their answers, or everything, at the moment that matters. A network can do the same.
//!
//! It serves every test of the process; the `client.id` tells which connections a fault applies to. A frame is 4 bytes
//! of length and then the request (api key, api version, correlation id, client id, …) or the answer (correlation id,
//! …). An answer is known by its correlation id. Frames are never altered.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::services::{Broker, Services, broker_behind, services};

/// Until something that must be withheld is.
const WAIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Produce = 0,
    EndTxn = 26,
}

/// The frames that are withheld of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Requests(Api),
    /// The broker does what it is asked; its answer does not arrive.
    Answers(Api),
    /// Requests of every kind, on connections old and new.
    Everything,
}

/// One frame on its way, and where it was going.
pub struct Frame {
    bytes: Vec<u8>,
    to: Arc<Mutex<TcpStream>>,
}

pub struct Proxy {
    faults: Arc<Faults>,
    /// As clients see it: the broker through the proxy.
    pub through: Services,
    /// The same broker without the proxy.
    pub around: Services,
    _broker: Broker,
}

#[derive(Default)]
struct Faults {
    by_client: Mutex<HashMap<String, (Fault, VecDeque<Frame>)>>,
    changed: Condvar,
}

/// The proxy of this test process and the broker behind it; the first call starts both.
pub fn proxy() -> &'static Proxy {
    static STARTED: OnceLock<Proxy> = OnceLock::new();
    STARTED.get_or_init(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let (broker, upstream) = broker_behind(address.port());
        let faults = Arc::new(Faults::default());
        let serving = faults.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let faults = serving.clone();
                // If a connection breaks, the client notices it.
                thread::spawn(move || drop(serve(client, upstream, &faults)));
            }
        });
        let registry = services().registry.clone();
        Proxy {
            faults,
            through: Services { bootstrap: address.to_string(), registry: registry.clone() },
            around: Services { bootstrap: broker.bootstrap.clone(), registry },
            _broker: broker,
        }
    })
}

impl Proxy {
    /// The fault holds from now on, until [`Proxy::release`] or [`Proxy::take`]; frames that are withheld already stay
    /// so.
    pub fn withhold(&self, client: &str, fault: Fault) {
        self.faults.lock().entry(client.to_owned()).or_insert_with(|| (fault, VecDeque::new())).0 = fault;
    }

    /// Until something is withheld. Blocks.
    ///
    /// # Panics
    /// If nothing is withheld in time.
    pub fn wait(&self, client: &str) {
        let deadline = Instant::now() + WAIT;
        let mut faults = self.faults.lock();
        while faults[client].1.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing was withheld");
            faults = self.faults.changed.wait_timeout(faults, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends all withheld frames on, in their order.
    pub fn release(&self, client: &str) {
        // Under the lock: frames that come now must not overtake them.
        let mut faults = self.faults.lock();
        for frame in faults.remove(client).into_iter().flat_map(|(_, frames)| frames) {
            // The receiver of the frame may have given up.
            drop(frame.deliver());
        }
    }

    /// Ends the fault; withheld frames never arrive, unless the test delivers them.
    pub fn take(&self, client: &str) -> Vec<Frame> {
        self.faults.lock().remove(client).map(|(_, frames)| frames.into()).unwrap_or_default()
    }
}

impl Frame {
    /// Sends it where it was going.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn deliver(&self) -> Result<()> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner).write_all(&self.bytes)
    }
}

impl Faults {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Fault, VecDeque<Frame>)>> {
        self.by_client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the frame on, or keeps it if it `matches` the frames that are withheld of the client.
    fn pass(&self, client: &str, frame: Frame, matches: impl FnOnce(Fault) -> bool) -> Result<()> {
        let mut faults = self.lock();
        match faults.get_mut(client) {
            Some((fault, withheld)) if matches(*fault) => {
                withheld.push_back(frame);
                self.changed.notify_all();
                Ok(())
            }
            // A frame is small beside the buffers of loopback, so the lock is held for moments.
            _ => frame.deliver(),
        }
    }
}

/// Requests under way on one connection: correlation id → client and kind.
type Asked = Arc<Mutex<HashMap<[u8; 4], (String, i16)>>>;

fn serve(mut client: TcpStream, upstream: SocketAddr, faults: &Arc<Faults>) -> Result<()> {
    let mut broker = TcpStream::connect(upstream)?;
    for stream in [&client, &broker] {
        stream.set_nodelay(true)?;
    }
    let (to_client, to_broker) = (Arc::new(Mutex::new(client.try_clone()?)), Arc::new(Mutex::new(broker.try_clone()?)));
    let (asked, answering) = (Asked::default(), faults.clone());
    let (expected, hang_up) = (asked.clone(), client.try_clone()?);
    thread::spawn(move || {
        while let Ok(bytes) = read_frame(&mut broker) {
            let correlation = [bytes[4], bytes[5], bytes[6], bytes[7]];
            let asked = expected.lock().unwrap_or_else(PoisonError::into_inner).remove(&correlation);
            let (client, key) = asked.unwrap_or_default();
            let frame = Frame { bytes, to: to_client.clone() };
            let is_withheld = |fault| matches!(fault, Fault::Answers(api) if api as i16 == key);
            if answering.pass(&client, frame, is_withheld).is_err() {
                break;
            }
        }
        drop(hang_up.shutdown(std::net::Shutdown::Both));
    });
    let result = loop {
        let bytes = match read_frame(&mut client) {
            Ok(bytes) => bytes,
            Err(error) => break Err(error),
        };
        let key = i16::from_be_bytes([bytes[4], bytes[5]]);
        let correlation = [bytes[8], bytes[9], bytes[10], bytes[11]];
        let length = usize::try_from(i16::from_be_bytes([bytes[12], bytes[13]])).unwrap_or(0);
        let name = String::from_utf8_lossy(&bytes[14..14 + length]).into_owned();
        asked.lock().unwrap_or_else(PoisonError::into_inner).insert(correlation, (name.clone(), key));
        let frame = Frame { bytes, to: to_broker.clone() };
        let is_withheld = |fault| match fault {
            Fault::Requests(api) => api as i16 == key,
            Fault::Answers(_) => false,
            Fault::Everything => true,
        };
        if let Err(error) = faults.pass(&name, frame, is_withheld) {
            break Err(error);
        }
    };
    // Withheld frames keep the connection's other half, which the broker must not take for a client that is there.
    drop(to_broker.lock().unwrap_or_else(PoisonError::into_inner).shutdown(std::net::Shutdown::Both));
    result
}

/// One frame with its length.
fn read_frame(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut bytes = length.to_vec();
    bytes.resize(4 + u32::from_be_bytes(length) as usize, 0);
    stream.read_exact(&mut bytes[4..])?;
    Ok(bytes)
}
