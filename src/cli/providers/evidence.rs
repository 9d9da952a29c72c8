//! How well each profile is known, as a table of docs/providers.md. Everything in it is derived from the profiles.

use super::provider::Provider;
use crate::scim::layers::BASE;

const INTRODUCTION: &str = "
## How well each profile is known

- *Documented*: the facts of the profile with a public source, of all its facts. The others are **unverified**.
- *Recorded*: where others published answers of the vendor.
- *Replayed*: the tests read a replay of the vendor, made-up people in the shapes of its documents, and compare `check`,
  `plan`, the events and the state after each kind of change with the truth. A replay shows no more than its sources do.
- *Tried*: scimtail has read the real product. No hosted service has been tried yet.

**If you read one of these vendors, please send a recording**: the status, the headers and the body of
`GET Users?startIndex=1&count=2`, of the page behind the last row, of `GET Groups`, and of GET by id of a user who was
disabled or removed. Replace all ids, names, addresses and tokens first, each consistently. Open an issue with it.

| provider | documented | recorded | replayed | tried |
|---|---|---|---|---|
";

/// What a source begins with if the real product was tried.
const TRIED: &str = "tried with ";

/// The section with its table; profiles of no vendor and directories that cannot be read have no row.
pub fn table(providers: &[Provider]) -> String {
    let read = |provider: &&Provider| provider.profile.name != BASE && provider.profile.unreadable.is_none();
    let rows = providers.iter().filter(read).map(row);
    format!("{INTRODUCTION}{}", rows.collect::<String>())
}

fn row(Provider { profile, facts }: &Provider) -> String {
    let sources: Vec<&str> =
        facts.iter().filter(|fact| !fact.default).filter_map(|fact| fact.source.as_deref()).collect();
    let documented = sources.iter().filter(|source| !source.contains("unverified")).count();
    let tried = sources.iter().find_map(|source| {
        let (_, product) = source.split_once(TRIED)?;
        product.split([';', ':']).next()
    });
    let (name, recorded) = (&profile.name, profile.recorded.as_deref().unwrap_or("no"));
    format!(
        "| [{name}](#{name}) | {documented} of {} | {recorded} | yes | {} |\n",
        sources.len(),
        tried.unwrap_or("no")
    )
}
