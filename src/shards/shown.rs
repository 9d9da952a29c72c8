//! A directory whose walks are shown while they are read.

use futures::{Stream, StreamExt};

use crate::directory::{Id, Kind};
use crate::progress::{Done, Entry};
use crate::source::{Answer, Directory, Page, Parsed, RawRow};

/// `directory`, with the rows of its lists counted on `entry`.
pub struct Shown<'a, D> {
    pub directory: &'a D,
    pub entry: Entry,
}

impl<D: Directory> Directory for Shown<'_, D> {
    type Error = D::Error;

    fn list(&self, kind: Kind, since: Option<i64>) -> impl Stream<Item = Result<Page, Self::Error>> + Send {
        let mut done = Done { what: kind.endpoint(), ..Done::default() };
        self.directory.list(kind, since).inspect(move |page| {
            let Ok(page) = page else { return };
            if page.restarted {
                done.done = 0;
            }
            done.done += (page.rows.len() + page.repeated + page.doubled) as u64;
            done.total = page.total.or(done.total);
            self.entry.set(done.clone());
        })
    }

    fn read(&self, kind: Kind, page: &Page, row: &RawRow) -> Parsed {
        self.directory.read(kind, page, row)
    }

    fn get(&self, kind: Kind, id: &Id) -> impl Future<Output = Answer> + Send {
        self.directory.get(kind, id)
    }

    fn in_one_page(&self, kind: Kind, count: u64) -> impl Future<Output = Option<Vec<RawRow>>> + Send {
        self.directory.in_one_page(kind, count)
    }

    fn matching(
        &self,
        kind: Kind,
        attribute: &'static str,
        id: &Id,
    ) -> impl Future<Output = Result<Vec<Id>, Self::Error>> + Send {
        self.directory.matching(kind, attribute, id)
    }
}
