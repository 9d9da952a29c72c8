//! Questions about single ids.

use futures::StreamExt;

use crate::directory::{Id, Kind};
use crate::source::{Answer, Directory};

/// GETs under way at once.
pub(super) const GETS_AT_ONCE: usize = 8;

/// Asks for every id, in this order.
pub(super) async fn ask<D: Directory>(directory: &D, kind: Kind, ids: Vec<Id>) -> Vec<(Id, Answer)> {
    let asked = ids.into_iter().map(|id| async move {
        let answer = directory.get(kind, &id).await;
        (id, answer)
    });
    futures::stream::iter(asked).buffered(GETS_AT_ONCE).collect().await
}
