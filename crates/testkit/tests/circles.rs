//! Checks that the modules of a crate do not depend on each other in circles. A module outside of circles can be read,
//! tested and moved without the modules that use it.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, ItemUse, UseTree};

/// The crates in which no module may be part of a circle.
const CRATES: [&str; 5] = ["agent", "api", "app", "store", "worker"];

/// The path of a module within its crate, without `crate`. The root of the crate is empty.
type Module = Vec<String>;

#[test]
fn no_modules_depend_on_each_other_in_a_circle() {
    let mut circles = Vec::new();
    for name in CRATES {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("../").join(name).join("src");
        let mut files = BTreeMap::new();
        find_modules(&src, &[], &mut files);
        assert!(files.len() > 10, "{name} has the modules {files:?}");
        let exports = Exports::read(&files);
        let uses: BTreeMap<Module, BTreeSet<Module>> = files
            .iter()
            .map(|(module, text)| (module.clone(), uses_of(module, text, &files, &exports)))
            .collect();
        let circular = files.keys().filter(|module| reaches(module, module, &uses));
        circles.extend(circular.map(|module| format!("{name}::{}", module.join("::"))));
    }
    assert_eq!(circles, [""; 0], "these modules depend on themselves through others");
}

/// Reads the source text of each module below `dir`, by the module's path. Test modules are skipped.
fn find_modules(dir: &Path, parent: &[String], files: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let is_root = parent.is_empty() && (name == "lib" || name == "main");
        let module: Module = match name.as_str() {
            "tests" => continue,
            "mod" => parent.to_vec(),
            _ if is_root => Module::new(),
            _ => [parent, &[name]].concat(),
        };
        if path.is_dir() {
            find_modules(&path, &module, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.insert(module, fs::read_to_string(&path).unwrap());
        }
    }
}

/// The modules of the names that the root of a crate exports.
struct Exports(BTreeMap<String, Module>);

impl Exports {
    fn read(files: &BTreeMap<Module, String>) -> Self {
        let mut paths = Paths::default();
        paths.visit_file(&syn::parse_file(&files[&Module::new()]).unwrap());
        let module_of = |path: &Vec<String>| {
            let path = path.strip_prefix(&["crate".to_owned()][..]).unwrap_or(path);
            Some((path.last()?.clone(), deepest(&Module::new(), path, files)))
        };
        Self(paths.found.iter().filter_map(module_of).filter(|(_, module)| !module.is_empty()).collect())
    }
}

/// Collects all paths of a file, without those of its tests.
#[derive(Default)]
struct Paths {
    found: Vec<Vec<String>>,
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.add_tree(&item.tree, &[]);
    }

    /// Skips `pub(super)` and the like, which use nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.found.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

impl Paths {
    fn add_tree(&mut self, tree: &UseTree, prefix: &[String]) {
        let with = |name: String| [prefix, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(&path.tree, &with(path.ident.to_string())),
            UseTree::Name(name) if name.ident == "self" => self.found.push(prefix.to_vec()),
            UseTree::Name(name) => self.found.push(with(name.ident.to_string())),
            UseTree::Rename(rename) => self.found.push(with(rename.ident.to_string())),
            UseTree::Glob(_) => self.found.push(prefix.to_vec()),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.add_tree(item, prefix)),
        }
    }
}

/// Returns the modules that a module uses, except itself and the root.
fn uses_of(
    module: &Module,
    text: &str,
    files: &BTreeMap<Module, String>,
    exports: &Exports,
) -> BTreeSet<Module> {
    let mut paths = Paths::default();
    paths.visit_file(&syn::parse_file(text).unwrap());
    let targets = paths.found.iter().filter_map(|path| {
        let supers = path.iter().take_while(|segment| *segment == "super").count();
        let (base, rest) = match path.first()?.as_str() {
            "crate" => (Module::new(), &path[1..]),
            "self" => (module.clone(), &path[1..]),
            "super" => (module[..module.len().checked_sub(supers)?].to_vec(), &path[supers..]),
            child if files.contains_key(&[&module[..], &[child.to_owned()]].concat()) => {
                (module.clone(), &path[..])
            }
            _ => return None,
        };
        let target = deepest(&base, rest, files);
        if target.is_empty() { exports.0.get(rest.first()?).cloned() } else { Some(target) }
    });
    targets.filter(|target| target != module).collect()
}

/// Follows a path from the module `base` as long as its segments are modules.
fn deepest(base: &Module, path: &[String], files: &BTreeMap<Module, String>) -> Module {
    let mut module = base.clone();
    for segment in path {
        module.push(segment.clone());
        if !files.contains_key(&module) {
            module.pop();
            break;
        }
    }
    module
}

/// Returns true if `to` can be reached from `from` in at least one step.
fn reaches(from: &Module, to: &Module, uses: &BTreeMap<Module, BTreeSet<Module>>) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        for used in uses.get(module).into_iter().flatten() {
            if used == to {
                return true;
            }
            if seen.insert(used) {
                next.push(used);
            }
        }
    }
    false
}
