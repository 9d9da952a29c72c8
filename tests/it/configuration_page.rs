//! `docs/configuration.md` and `docs/profiles.md` are generated from the structs that serde fills, with their doc
//! comments. So each key that a file may have is on its page, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use scimtail::config::Config;
use scimtail::directory::AttributeList;
use syn::{Attribute, Expr, Fields, GenericArgument, Item, Lit, Meta, PathArguments, Stmt, Type};

/// The line of a doc comment that says what holds without the key.
const DEFAULT: &str = "Default: ";

const CONFIGURATION: &str = "\
<!-- Made by `UPDATE_EXPECT=1 cargo test --test it configuration_page`; do not edit. -->

# Configuration

scimtail reads one TOML file: `scimtail.toml` in the current folder, or the file that `--config` or `SCIMTAIL_CONFIG`
names. `[kafka]`, `[registry]` and one `[[account]]` are enough:

```toml
[kafka]
brokers = [\"localhost:9092\"]

[registry]
url = \"http://localhost:8081\"      # Confluent API; Apicurio: http://host:port/apis/ccompat/v7

[[account]]
name = \"acme-stripe\"
provider = \"stripe\"
token_env = \"STRIPE_SCIM_TOKEN\"
```

An unknown key is an error. The message has its line and the nearest known key. The service follows its configuration
while it runs; [operations](operations.md#changes-of-the-configuration) says what needs a restart. [Kafka](kafka.md) and
[network](network.md) say more about credentials, certificates and proxies.

## Secrets

A secret is never in this file. A key that ends in `_env` takes the name of an environment variable. A key that ends in
`_file` takes the path of a file.

- A token is alone in its variable or file. White space around it is left out. Quotes or `Bearer ` in front of it are
  refused. Of a password only the line ending is left out.
- Secrets are read again for each sync, and once more if the server refuses one in the middle of a sync. So a new secret
  needs no restart.
- No message repeats a value from the place of a secret. A message repeats the name of a variable only if the name
  consists of capital letters, digits and `_`.
- Accounts with the same credential at the same host share one request budget. The budget follows the profile's
  `rate_limits` and the vendor's `Retry-After` and rate-limit headers.

Which of the keys for a credential an account takes is decided by `auth` of its profile: [profiles](profiles.md).

## Attributes

";

const CONFIGURATION_ATTRIBUTES: &str = "
`password` and `x509Certificates` are never published. If a directory serves no `displayName`, `name` is used instead.
`display` beside a `value` (the name of a role, of a manager) is published, but a difference in `display` alone is not a
change.
";

const PROFILES: &str = "\
<!-- Made by `UPDATE_EXPECT=1 cargo test --test it configuration_page`; do not edit. -->

# Profiles

A profile says how a vendor's directory is read. [Providers](providers.md) has the profiles that are part of scimtail,
with the source of each fact. `scimtail providers NAME` prints all fields of one, and an account to begin with. Any
other SCIM 2.0 server is `provider = \"generic\"` with its `base_url`.

If a server differs from its profile, override fields for one account, or write a profile of your own. A profile of your
own states its `title` and the fields that differ from `generic`, or from the profile that it `extends`:

```toml
[[account]]
name = \"acme-directory\"
provider = \"acme\"
base_url = \"https://acme.example/scim/v2\"
token_env = \"ACME_SCIM_TOKEN\"
[account.profile]
page_size = 50                     # any field of this page, for this account

[providers]
acme = \"acme.toml\"                 # beside the configuration file
```

```toml
# acme.toml
title = \"Acme directory\"
extends = \"generic\"
memberships = \"get\"
```

`scimtail check` tests what the directory does (cursors, totals, page sizes, where members are shown, GET by id) and
names the settings to use.

| field | value | generic | meaning |
|---|---|---|---|
";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A struct or an enum of the configuration, as its source has it.
#[derive(Debug, Default)]
struct Declared {
    fields: Vec<Key>,
    /// Of an enum: the value in the file, and what it means.
    values: Vec<(String, String)>,
    refuses_unknown: bool,
}

#[derive(Debug)]
struct Key {
    name: String,
    kind: Kind,
    /// What serde takes if the key is missing, or what the doc comment says of it.
    default: Option<String>,
    optional: bool,
    meaning: String,
}

#[derive(Clone, Debug)]
enum Kind {
    Plain(&'static str),
    /// A name that is looked up: a struct, an enum or an alias.
    Named(String),
    /// A list of sections: `[[name]]`.
    List(String),
}

/// Everything that the files declare, by name; and the types that are other names.
#[derive(Default)]
struct Sources {
    declared: BTreeMap<String, Declared>,
    aliases: BTreeMap<String, Kind>,
}

fn sources(files: impl Iterator<Item = PathBuf>) -> Sources {
    let mut sources = Sources::default();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let functions = functions(&file.items);
        for item in &file.items {
            // What stands in for a part that was left out of the build is not the declaration.
            match item {
                Item::Struct(item) if !has(&item.attrs, "cfg") && reads_toml(&item.attrs) => {
                    let name = item.ident.to_string();
                    sources.declared.insert(name.clone(), declared(&name, &item.attrs, &item.fields, &functions));
                }
                Item::Enum(item) if !has(&item.attrs, "cfg") && reads_toml(&item.attrs) => {
                    let values = item
                        .variants
                        .iter()
                        .map(|variant| (snake_case(&variant.ident.to_string()), doc(&variant.attrs).join(" ")))
                        .collect();
                    sources.declared.insert(item.ident.to_string(), Declared { values, ..Declared::default() });
                }
                Item::Type(item) => {
                    if let Some(kind) = kind(&item.ty) {
                        sources.aliases.insert(item.ident.to_string(), kind);
                    }
                }
                _ => {}
            }
        }
    }
    sources
}

fn functions(items: &[Item]) -> BTreeMap<String, String> {
    let body = |item: &syn::ItemFn| match item.block.stmts.as_slice() {
        [Stmt::Expr(expression, None)] => value(expression),
        _ => None,
    };
    let functions = items.iter().filter_map(|item| match item {
        Item::Fn(item) => Some((item.sig.ident.to_string(), body(item)?)),
        _ => None,
    });
    functions.collect()
}

/// A literal as the file would have it.
fn value(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => Some(format!("{:?}", text.value())),
            Lit::Int(number) => Some(number.base10_digits().to_owned()),
            Lit::Bool(flag) => Some(flag.value.to_string()),
            _ => None,
        },
        Expr::Unary(negative) if matches!(negative.op, syn::UnOp::Neg(_)) => {
            Some(format!("-{}", value(&negative.expr)?))
        }
        // "…".to_owned()
        Expr::MethodCall(call) => value(&call.receiver),
        _ => None,
    }
}

fn declared(of: &str, attributes: &[Attribute], fields: &Fields, functions: &BTreeMap<String, String>) -> Declared {
    let mut keys = Vec::new();
    for field in fields {
        let name = field.ident.as_ref().expect("a named field").to_string();
        let mut by_serde = None;
        let mut has_default = false;
        let mut skipped = false;
        for word in serde_words(&field.attrs) {
            match word.split_once(" = ").unwrap_or((&word, "")) {
                ("skip", "") => skipped = true,
                ("deserialize_with", _) => {}
                ("default", "") => has_default = true,
                ("default", function) => {
                    has_default = true;
                    let function = function.trim_matches('"');
                    let value = functions.get(function);
                    by_serde = Some(value.unwrap_or_else(|| panic!("{of}.{name}: {function}() is no literal")).clone());
                }
                _ => panic!("{of}.{name}: this page does not know what serde({word}) means for the file"),
            }
        }
        if skipped {
            continue;
        }
        let kind = kind(&field.ty).unwrap_or_else(|| panic!("{of}.{name}: this page has no word for its type"));
        if has_default && by_serde.is_none() {
            by_serde = match kind {
                Kind::Plain("true or false") => Some("false".to_owned()),
                _ => Some(String::new()),
            };
        }
        let optional = is_option(&field.ty);
        let (told, meaning): (Vec<String>, Vec<String>) =
            doc(&field.attrs).into_iter().partition(|line| line.starts_with(DEFAULT));
        let told = told.first().map(|line| line[DEFAULT.len()..].to_owned());
        assert!(told.is_none() || (optional && by_serde.is_none()), "{of}.{name}: serde says its default");
        let by_serde = by_serde.map(|value| if value.is_empty() { "none".to_owned() } else { format!("`{value}`") });
        keys.push(Key { name, kind, default: told.or(by_serde), optional, meaning: meaning.join(" ") });
    }
    let refuses_unknown = serde_words(attributes).iter().any(|word| word == "deny_unknown_fields");
    Declared { fields: keys, values: Vec::new(), refuses_unknown }
}

fn has(attributes: &[Attribute], name: &str) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident(name))
}

/// True with `#[derive(…, Deserialize)]`.
fn reads_toml(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("derive") => list.tokens.to_string().contains("Deserialize"),
        _ => false,
    })
}

/// What stands in `#[serde(…)]`.
fn serde_words(attributes: &[Attribute]) -> Vec<String> {
    let lists = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("serde") => Some(list.tokens.to_string()),
        _ => None,
    });
    lists.flat_map(|tokens| tokens.split(',').map(|word| word.trim().to_owned()).collect::<Vec<_>>()).collect()
}

/// The lines of a doc comment.
fn doc(attributes: &[Attribute]) -> Vec<String> {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    lines.filter(|line| !line.is_empty()).collect()
}

fn is_option(ty: &Type) -> bool {
    last(ty).is_some_and(|(name, _)| name == "Option")
}

/// The last part of a path, and its first argument.
fn last(ty: &Type) -> Option<(String, Option<&Type>)> {
    let Type::Path(path) = ty else { return None };
    let segment = path.path.segments.last()?;
    let inner = match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::Type(inner) => Some(inner),
            _ => None,
        }),
        _ => None,
    };
    Some((segment.ident.to_string(), inner))
}

fn kind(ty: &Type) -> Option<Kind> {
    let (name, inner) = last(ty)?;
    Some(match (name.as_str(), inner) {
        // `Spanned` remembers the line.
        ("Option" | "Spanned", Some(inner)) => kind(inner)?,
        ("Vec", Some(inner)) => match kind(inner)? {
            Kind::Plain("text") => Kind::Plain("list of texts"),
            Kind::Named(name) => Kind::List(name),
            Kind::Plain(_) | Kind::List(_) => return None,
        },
        ("String", None) => Kind::Plain("text"),
        ("PathBuf", None) => Kind::Plain("path"),
        ("bool", None) => Kind::Plain("true or false"),
        ("f64", None) => Kind::Plain("number"),
        ("i32" | "u32" | "u64" | "usize", None) => Kind::Plain("whole number"),
        ("BTreeMap", _) | ("Table", None) => Kind::Plain("table"),
        ("Duration", None) => Kind::Plain("duration"),
        (_, None) => Kind::Named(name),
        (_, Some(_)) => return None,
    })
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// The page of the configuration, section by section.
struct Page<'a> {
    sources: &'a Sources,
    text: String,
    /// The section in which a struct was shown first.
    shown: BTreeMap<String, String>,
}

impl Page<'_> {
    fn kind(&self, key: &Key) -> Kind {
        match &key.kind {
            Kind::Named(name) => self.sources.aliases.get(name).cloned().unwrap_or_else(|| key.kind.clone()),
            _ => key.kind.clone(),
        }
    }

    /// The struct of a section that has keys, and whether it is a list.
    fn section_of(&self, key: &Key) -> Option<(String, bool)> {
        let (name, list) = match self.kind(key) {
            Kind::Named(name) => (name, false),
            Kind::List(name) => (name, true),
            Kind::Plain(_) => return None,
        };
        let declared = self.sources.declared.get(&name).unwrap_or_else(|| panic!("{name} is not declared"));
        (!declared.fields.is_empty()).then_some((name, list))
    }

    fn section(&mut self, path: &str, name: &str, list: bool) {
        let header = if list { format!("[[{path}]]") } else { format!("[{path}]") };
        if let Some(first) = self.shown.get(name) {
            let anchor = first.replace('.', "");
            write!(self.text, "\n## `{header}`\n\nThe keys of [`[{first}]`](#{anchor}), for one account.\n").unwrap();
            return;
        }
        self.shown.insert(name.to_owned(), path.to_owned());
        let declared = &self.sources.declared[name];
        assert!(declared.refuses_unknown, "{name} takes unknown keys, which this page cannot list");
        let (rows, inner): (Vec<&Key>, Vec<&Key>) =
            declared.fields.iter().partition(|key| self.section_of(key).is_none());
        if !rows.is_empty() {
            write!(self.text, "\n## `{header}`\n\n| key | value | without it | meaning |\n|---|---|---|---|\n")
                .unwrap();
        }
        for key in rows {
            let row = self.row(&key.name, key, name);
            self.text.push_str(&row);
        }
        for key in inner {
            let (of, list) = self.section_of(key).expect("a section");
            self.section(&format!("{path}.{}", key.name), &of, list);
        }
    }

    fn row(&self, name: &str, key: &Key, of: &str) -> String {
        let value = match self.kind(key) {
            Kind::Plain(word) => word.to_owned(),
            Kind::Named(kind) => match self.sources.declared[&kind].values.as_slice() {
                [] => "section".to_owned(),
                values => values.iter().map(|(value, _)| format!("`\"{value}\"`")).collect::<Vec<_>>().join(" or "),
            },
            Kind::List(_) => "list".to_owned(),
        };
        let default = match &key.default {
            Some(text) => text.as_str(),
            None if key.optional => "none",
            None => "required",
        };
        assert!(!key.meaning.is_empty(), "{of}.{name} has no doc comment");
        format!("| `{name}` | {value} | {} | {} |\n", cell(default), cell(&key.meaning))
    }
}

fn configuration() -> String {
    let folder = std::fs::read_dir(root().join("src/config")).expect("src/config");
    let files = folder.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|it| it == "rs"));
    let sources = sources(files);
    let mut page = Page { sources: &sources, text: CONFIGURATION.to_owned(), shown: BTreeMap::new() };
    let paths = AttributeList::default();
    let paths: Vec<String> = paths.paths().iter().map(|path| format!("`{path}`")).collect();
    writeln!(
        page.text,
        "Without `attributes`, these SCIM paths may leave the process, and those that the profile adds:\n"
    )
    .unwrap();
    for path in paths {
        writeln!(page.text, "- {path}").unwrap();
    }
    page.text.push_str(CONFIGURATION_ATTRIBUTES);
    let file = &sources.declared["File"];
    assert!(file.refuses_unknown, "the file takes unknown sections");
    for key in &file.fields {
        match page.section_of(key) {
            Some((name, list)) => page.section(&key.name, &name, list),
            // `[providers]` takes any name.
            None => {
                let row = page.row("NAME", key, "File");
                let head = "| key | value | without it | meaning |\n|---|---|---|---|";
                write!(page.text, "\n## `[{}]`\n\n{head}\n{}", key.name, row.replace("table", "path")).unwrap();
            }
        }
    }
    page.text
}

fn profiles() -> String {
    let sources = sources([root().join("src/scim/profile.rs")].into_iter());
    let generic: toml::Table =
        std::fs::read_to_string(root().join("src/scim/providers/generic.toml")).unwrap().parse().unwrap();
    let profile = &sources.declared["Profile"];
    assert!(profile.refuses_unknown, "a profile takes unknown fields");
    let mut page = PROFILES.to_owned();
    for key in profile.fields.iter().filter(|key| key.name != "notes" && key.name != "sources") {
        let values = match &key.kind {
            Kind::Named(name) => sources.declared[name].values.as_slice(),
            Kind::Plain(_) | Kind::List(_) => &[],
        };
        let value = match &key.kind {
            Kind::Plain(word) => (*word).to_owned(),
            Kind::Named(_) => values.iter().map(|(value, _)| format!("`{value}`")).collect::<Vec<_>>().join(", "),
            Kind::List(_) => "list".to_owned(),
        };
        assert!(!key.meaning.is_empty(), "Profile.{} has no doc comment", key.name);
        let meanings: String = values
            .iter()
            .filter(|(_, meaning)| !meaning.is_empty())
            .map(|(value, meaning)| format!("<br>`{value}`: {meaning}"))
            .collect();
        let default = generic.get(&key.name).map_or("none".to_owned(), |value| format!("`{value}`"));
        let meaning = cell(&format!("{}{meanings}", key.meaning));
        writeln!(page, "| `{}` | {value} | {} | {meaning} |", key.name, cell(&default)).unwrap();
    }
    page.push_str(
        "\n`notes` and `sources` are for people: what `check` says about the vendor, and where each fact is from.\n",
    );
    page
}

#[test]
fn the_page_of_the_configuration_has_every_key_of_the_file() {
    expect_file![concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md")].assert_eq(&configuration());
}

#[test]
fn the_page_of_the_profiles_has_every_field_of_a_profile() {
    expect_file![concat!(env!("CARGO_MANIFEST_DIR"), "/docs/profiles.md")].assert_eq(&profiles());
}

/// Doc comments say what the code does without a key. This compares what they say with what it does.
#[test]
fn a_file_without_a_key_means_what_the_page_says() {
    const LEAST: &str = "[kafka]\nbrokers = [\"localhost:9092\"]\n[registry]\nurl = \"http://localhost:8081\"\n\
                         [network]\nproxy = \"none\"\n\
                         [[account]]\nname = \"acme\"\nprovider = \"stripe\"\ntoken_env = \"ACME_TOKEN\"\n";
    let config = Config::parse("least.toml", LEAST).expect("a configuration");
    let account = &config.accounts[0];
    let limits = &account.account.limits;
    let page = configuration();
    let said = |section: &str, key: &str| {
        let (_, rest) = page.split_once(&format!("## `{section}`")).unwrap_or_else(|| panic!("no {section}"));
        let rest = rest.split("\n## ").next().unwrap();
        let row = rest.lines().find(|line| line.starts_with(&format!("| `{key}` |"))).expect("a row");
        row.split(" | ").nth(2).unwrap().to_owned()
    };
    for (section, key, value) in [
        ("[kafka]", "topic_prefix", format!("{:?}", config.kafka.topic_prefix)),
        ("[kafka]", "partitions", config.kafka.partitions.to_string()),
        ("[kafka]", "create_topics", config.create_topics.to_string()),
        ("[kafka]", "replication", config.replication.to_string()),
        ("[registry]", "register", config.register.to_string()),
        ("[defaults]", "baseline", format!("{:?}", format!("{:?}", account.account.baseline).to_lowercase())),
        ("[defaults.guard]", "max_ratio", limits.max_ratio.to_string()),
        ("[defaults.guard]", "min_losses", limits.min_losses.to_string()),
        ("[defaults.guard]", "max_absolute", limits.max_absolute.to_string()),
        ("[defaults.limits]", "max_principals", account.account.max_principals.to_string()),
        ("[[account]]", "allow_private", account.allow_private.to_string()),
    ] {
        assert_eq!(said(section, key), format!("`{value}`"), "{section} {key}");
    }
    assert_eq!(limits.max_added, None);
    assert_eq!(said("[defaults.guard]", "max_added"), "no limit");
    let interval = format!("that of the profile, else `\"{}m\"`", account.interval.as_secs() / 60);
    assert_eq!(said("[defaults]", "interval"), interval);
    assert_eq!(account.account.attributes, account.profile.default_attributes());
    assert_eq!(said("[defaults]", "attributes"), "the paths above, and those of the profile");
}

/// A key that is on the page twice, or a section that is missing, would be a fault of this file.
#[test]
fn the_page_of_the_configuration_has_each_section_once() {
    let page = configuration();
    let headings: Vec<&str> = page.lines().filter(|line| line.starts_with("## `[")).collect();
    let once: BTreeSet<&str> = headings.iter().copied().collect();
    assert_eq!(once.len(), headings.len(), "{headings:?}");
    for section in ["[kafka]", "[kafka.oauth]", "[kafka.msk_iam]", "[registry]", "[account.guard]", "[[account]]"] {
        assert!(once.contains(format!("## `{section}`").as_str()), "{section} is missing");
    }
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md").exists());
}
