//! The import graph of `src`, read from the code itself, so no cycle comes in unnoticed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// A path of identifiers: `crate::log::Topic` is `["crate", "log", "Topic"]`.
type Names = Vec<String>;

/// One file of `src`, as a module.
struct Module {
    file: String,
    /// Paths that its code uses, as written; `#[cfg(test)]` aside.
    uses: BTreeSet<Names>,
    /// Name → the path that a `use` gives it.
    imported: BTreeMap<String, Names>,
    defined: BTreeSet<String>,
}

/// File → files that it uses, both relative to `src`. A name that a module re-exports counts as a use of the file that
/// defines it.
fn files() -> BTreeMap<String, BTreeSet<String>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut modules = BTreeMap::new();
    read(&root, &root, &mut modules);
    let used = |path: &Names, module: &Module| {
        let resolved = module.uses.iter().filter_map(|names| resolve(&modules, path, names));
        // The crate itself declares its modules and is used by none; `main` only calls it.
        let others = resolved.filter(|to| to != path && !to.is_empty());
        others.map(|to| modules[&to].file.clone()).collect()
    };
    let inner = modules.iter().filter(|(path, module)| !path.is_empty() && module.file != "main.rs");
    inner.map(|(path, module)| (module.file.clone(), used(path, module))).collect()
}

fn read(root: &Path, folder: &Path, modules: &mut BTreeMap<Names, Module>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read(root, &path, modules);
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let relative = path.strip_prefix(root).expect("inside");
        let mut names: Names = relative.iter().map(|part| part.to_str().expect("UTF-8").replace(".rs", "")).collect();
        if names.last().is_some_and(|last| last == "mod") || names == ["lib"] {
            names.pop();
        }
        let source = std::fs::read_to_string(&path).expect("a source file");
        let parsed = syn::parse_file(&source).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = relative.to_str().expect("UTF-8").to_owned();
        let mut module = Module { file, uses: BTreeSet::new(), imported: BTreeMap::new(), defined: BTreeSet::new() };
        module.visit_file(&parsed);
        modules.insert(names, module);
    }
}

/// The module that a path used in the module `from` leads to; `None` for other crates and local names.
fn resolve(modules: &BTreeMap<Names, Module>, from: &Names, names: &[String]) -> Option<Names> {
    let (mut at, mut rest): (Names, &[String]) = match names.first()?.as_str() {
        "crate" => (Vec::new(), &names[1..]),
        "self" => (from.clone(), &names[1..]),
        "super" => {
            let ups = names.iter().take_while(|name| *name == "super").count();
            (from[..from.len().checked_sub(ups)?].to_vec(), &names[ups..])
        }
        first => {
            let child = [from.as_slice(), &[first.to_owned()]].concat();
            modules.contains_key(&child).then(|| (from.clone(), names))?
        }
    };
    while let Some(next) = rest.first().map(|name| [at.as_slice(), std::slice::from_ref(name)].concat())
        && modules.contains_key(&next)
    {
        (at, rest) = (next, &rest[1..]);
    }
    let module = &modules[&at];
    match rest.first().and_then(|name| module.imported.get(name).filter(|_| !module.defined.contains(name))) {
        Some(target) => Some(resolve(modules, &at, target).unwrap_or(at)),
        None => Some(at),
    }
}

impl Module {
    fn import(&mut self, tree: &syn::UseTree, mut names: Names) {
        match tree {
            syn::UseTree::Path(path) => {
                names.push(path.ident.to_string());
                self.import(&path.tree, names);
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, names.clone());
                }
            }
            syn::UseTree::Glob(_) => drop(self.uses.insert(names)),
            syn::UseTree::Name(name) => {
                let name = name.ident.to_string();
                if name != "self" {
                    names.push(name);
                }
                self.name(names.last().cloned().unwrap_or_default(), names);
            }
            syn::UseTree::Rename(rename) => {
                names.push(rename.ident.to_string());
                self.name(rename.rename.to_string(), names);
            }
        }
    }

    fn name(&mut self, name: String, names: Names) {
        self.uses.insert(names.clone());
        self.imported.insert(name, names);
    }
}

impl<'ast> Visit<'ast> for Module {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let (attributes, name) = match item {
            syn::Item::Const(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Enum(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
            syn::Item::Mod(item) => (&item.attrs, None),
            syn::Item::Static(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Struct(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Trait(item) => (&item.attrs, Some(&item.ident)),
            syn::Item::Type(item) => (&item.attrs, Some(&item.ident)),
            _ => return visit::visit_item(self, item),
        };
        let of_tests = |attribute: &syn::Attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
        };
        if !attributes.iter().any(of_tests) {
            self.defined.extend(name.map(ToString::to_string));
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&item.tree, Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.uses.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    /// The expansion of a macro is not known here; a path in its tokens is a use all the same.
    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let text = called.tokens.to_string().replace(" :: ", "::");
        for word in text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
            let names: Names = word.split("::").map(str::to_owned).collect();
            if names.len() > 1 {
                self.uses.insert(names);
            }
        }
    }

    /// `pub(super)` uses nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

/// Some cycle of the graph, as the nodes along it; `None` if there is none.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut left: BTreeSet<&String> = graph.keys().collect();
    // A node that uses no remaining node is not in a cycle.
    loop {
        let before = left.len();
        let ends: Vec<&String> =
            left.iter().copied().filter(|node| graph[*node].iter().all(|to| !left.contains(to))).collect();
        left.retain(|node| !ends.contains(node));
        if left.len() == before {
            break;
        }
    }
    // Each node that is left uses another one that is left: following them comes back to one that was passed.
    let mut path = vec![left.first().copied()?];
    loop {
        let next = graph[*path.last()?].iter().find(|to| left.contains(to))?;
        if let Some(first) = path.iter().position(|passed| *passed == next) {
            return Some(path[first..].iter().chain([&next]).map(|node| (*node).clone()).collect());
        }
        path.push(next);
    }
}

/// Top-level module → those that it uses.
pub fn modules() -> BTreeMap<String, BTreeSet<String>> {
    top_level(&files())
}

fn top_level(files: &BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    let top = |file: &str| file.split('/').next().unwrap_or(file).trim_end_matches(".rs").to_owned();
    let mut modules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, uses) in files {
        let from = top(file);
        let others = uses.iter().map(|to| top(to)).filter(|to| *to != from);
        modules.entry(from.clone()).or_default().extend(others);
    }
    modules
}

/// So a reader can begin anywhere and read downwards.
#[test]
fn no_file_uses_one_that_uses_it_directly_or_through_others() {
    if let Some(cycle) = cycle(&files()) {
        panic!("a cycle: {}", cycle.join(" → "));
    }
}

#[test]
fn no_module_uses_one_that_uses_it_directly_or_through_others() {
    if let Some(cycle) = cycle(&modules()) {
        panic!("a cycle: {}", cycle.join(" → "));
    }
}

/// `lib.rs` declares the modules in reading order.
#[test]
fn every_module_uses_only_modules_that_are_declared_below_it() {
    let library =
        std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("lib.rs");
    let declared: Vec<&str> = library.lines().filter_map(|line| line.split_once("mod ")?.1.strip_suffix(';')).collect();
    let place = |name: &str| declared.iter().position(|other| *other == name);
    for (from, uses) in modules() {
        for to in uses {
            assert!(place(&from) < place(&to), "{from} uses {to}, which is above it in lib.rs");
        }
    }
}

#[test]
fn a_cycle_is_found_wherever_it_begins() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in edges {
            graph.entry((*to).to_owned()).or_default();
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        graph
    };
    assert_eq!(cycle(&graph(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    let through = graph(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]);
    assert_eq!(cycle(&through), Some(["b", "c", "b"].map(str::to_owned).to_vec()));
}

#[test]
fn the_reading_of_uses_sees_what_there_is() {
    let files = files();
    let uses = |from: &str, to: &str| files[from].contains(to);
    assert!(uses("sync/mod.rs", "sync/observe/mod.rs"), "a path that begins with a child");
    assert!(uses("sync/batch.rs", "directory/status.rs"), "a name that another module re-exports");
    assert!(uses("sync/attempt.rs", "sync/owned.rs"), "a path that begins with super");
    assert!(!files["directory/guard.rs"].iter().any(|to| to.starts_with("sync/")));
}
