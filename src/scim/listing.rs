//! Index paging (RFC 7644 §3.4.2.4) as a stream of pages that is complete or ends in an error.
//!
//! Walk rules (design §5): advance by rows received, never by `itemsPerPage`; end at an empty page or one
//! that brings no new row, never at a short one, because a silent cap looks like the end.

use async_stream::try_stream;
use futures::Stream;
use tokio_util::task::AbortOnDropHandle;

use super::client::{Client, refusal};
use super::error::{self, ReadError};
use super::wire::{self, ListPage};
use crate::directory::{Kind, RawHash, Set};
use crate::pipeline::Page;

/// Pages of one walk: a million rows at ten a page, and an end to servers that invent rows for ever.
pub const PAGES_MAX: usize = 100_000;

/// The pages of one walk. Dropping the stream aborts the request under way.
pub fn pages(client: Client, kind: Kind) -> impl Stream<Item = Result<Page, ReadError>> + Send {
    try_stream! {
        let mut seen: Set<RawHash> = Set::default();
        let mut first_row = None;
        let mut start = 1;
        let mut request = fetch(&client, kind, start);
        for number in 0.. {
            if number == PAGES_MAX {
                let text = format!("{} has more than {PAGES_MAX} pages", kind.endpoint());
                Err(ReadError::new(error::TOO_MANY_PAGES, text))?;
            }
            let mut page = page(request).await?;
            let received = page.rows.len();
            page.rows.retain(|row| seen.insert(row.hash));
            first_row = first_row.or_else(|| page.rows.first().map(|row| row.hash));
            if page.rows.is_empty() {
                // A page of repeats after the first: the walk went round (harmless) or startIndex is ignored.
                if received > 1 && number == 1 && ignores_start_index(&client, kind, first_row).await? {
                    let text = format!("{} ignores startIndex: only its first page can be read", kind.endpoint());
                    Err(ReadError::new(error::PAGING_IGNORED, text))?;
                }
                yield page;
                return;
            }
            start += received;
            // The next page is on its way while this one is compared.
            request = fetch(&client, kind, start);
            yield page;
        }
    }
}

type Request = AbortOnDropHandle<Result<Page, ReadError>>;

/// Asks for a page, splits it into rows and hashes them, on a task of its own.
fn fetch(client: &Client, kind: Kind, start: usize) -> Request {
    let query = [("startIndex", start.to_string()), ("count", client.profile().page_size.to_string())];
    let url = client.url(&[kind.endpoint()], &query);
    let client = client.clone();
    #[expect(clippy::disallowed_methods, reason = "the handle aborts the request when the walk is dropped")]
    AbortOnDropHandle::new(tokio::spawn(async move {
        let reply = client.get(url).await?;
        if reply.status.as_u16() != 200 {
            return Err(refusal(reply.status, client.profile()));
        }
        let ListPage { rows, total } = wire::split_list(&reply.body)?;
        Ok(Page { rows, total, skew: reply.skew, received_at: reply.received_at })
    }))
}

async fn page(request: Request) -> Result<Page, ReadError> {
    request.await.unwrap_or_else(|_| Err(ReadError::new(error::UNREACHABLE, "the request was cut off")))
}

/// Asked for the second row, a server that ignores `startIndex` answers with the first.
async fn ignores_start_index(client: &Client, kind: Kind, first: Option<RawHash>) -> Result<bool, ReadError> {
    let page = page(fetch(client, kind, 2)).await?;
    Ok(first.is_some() && page.rows.first().map(|row| row.hash) == first)
}
