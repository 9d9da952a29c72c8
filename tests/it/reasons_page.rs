//! `docs/reasons.md` is generated from the reason codes, so it names all of them.

use expect_test::expect_file;
use scimtail::directory::ReasonCode;

const INTRODUCTION: &str = "\
# Reason codes

`reason_code` of a `syncs` record tells programs why a sync failed, is held, or repairs. `reason` beside it says the
same in words. It names the list, the row and the setting that are concerned. A completed sync has no `reason_code`,
except `repair`. A later version may add codes. If a code is not in this table, a person has to look.

The third column says what ends the condition.

- **passes by itself**: a later attempt ends it. If the condition lasts, the last column says what to do.
- **a person looks**: a person has to look, ask the vendor, or release the hold.
- **configuration**: the configuration, a credential or a setting of Kafka has to change.

| `reason_code` | what happened | ends by | what to do |
|---|---|---|---|
";

#[test]
fn the_page_about_reasons_names_every_code() {
    let row = |code: ReasonCode| {
        format!("| `{code}` | {} | {} | {} |\n", code.meaning(), code.class().as_str(), code.remedy())
    };
    let rows: String = ReasonCode::ALL.into_iter().map(row).collect();
    expect_file![concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reasons.md")].assert_eq(&format!("{INTRODUCTION}{rows}"));
}
