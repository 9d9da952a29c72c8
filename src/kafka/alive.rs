//! The clients of librdkafka that have not ended.
//!
//! When a process exits, OpenSSL frees what it has, while threads of librdkafka may still use it for TLS. The process
//! then ends by a signal (SIGSEGV), although its work is done. So a program waits for its clients before it exits.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

static COUNT: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// Is part of the context of a client, which librdkafka's threads outlive by nothing: it is dropped after them.
#[derive(Debug)]
pub struct Alive(());

impl Default for Alive {
    fn default() -> Alive {
        *COUNT.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Alive(())
    }
}

impl Clone for Alive {
    fn clone(&self) -> Alive {
        Alive::default()
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let mut count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
        *count -= 1;
        if *count == 0 {
            ENDED.notify_all();
        }
    }
}

/// Waits until all clients have ended, for so long at most. A client whose broker is gone may take its time.
pub fn wait_for_end(wait: Duration) {
    let count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    drop(ENDED.wait_timeout_while(count, wait, |count| *count > 0));
}
