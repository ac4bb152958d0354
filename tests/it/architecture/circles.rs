//! No two files of a room need each other.
//!
//! A file needs another if its code names something that the other defines. A front page may pass on
//! what its files define (`pub use`): the name then counts for the file that defines it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::modules::{self, Module, ModulePath};

type Needs = BTreeMap<ModulePath, BTreeSet<ModulePath>>;

/// Returns the files of its own room that each file needs.
fn needs(modules: &BTreeMap<ModulePath, Module>) -> Needs {
    let needed_by = |path: &ModulePath, module: &Module| {
        let defined = module.named.iter().filter_map(|named| modules::definition(modules, named));
        defined.filter(|other| other != path && other[0] == path[0]).collect()
    };
    modules.iter().map(|(path, module)| (path.clone(), needed_by(path, module))).collect()
}

/// The shortest way from a file back to itself.
fn circle(needs: &Needs, start: &ModulePath) -> Option<Vec<ModulePath>> {
    let mut ways = VecDeque::from([vec![start.clone()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in needs.get(way.last()?).into_iter().flatten() {
            let further = [way.clone(), vec![next.clone()]].concat();
            if next == start {
                return Some(further);
            }
            if seen.insert(next.clone()) {
                ways.push_back(further);
            }
        }
    }
    None
}

fn shown(way: &[ModulePath]) -> String {
    way.iter().map(|path| path.join("/")).collect::<Vec<_>>().join(" → ")
}

#[test]
fn no_files_of_a_room_need_each_other() {
    let needs = needs(&modules::read(&super::source()));
    let circles: BTreeSet<String> = needs
        .keys()
        .filter_map(|path| circle(&needs, path))
        // Each circle once: from its first file.
        .filter(|way| way.iter().min() == way.first())
        .map(|way| shown(&way))
        .collect();
    let list: Vec<String> = circles.into_iter().collect();
    assert!(list.is_empty(), "these files need each other:\n{}", list.join("\n"));
}

#[test]
fn a_circle_through_a_front_page_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    };
    write("room/mod.rs", "mod a; mod b; mod c; pub use b::B;\n#[cfg(test)] mod tests;");
    write("room/a.rs", "pub struct A; fn f() { format!(\"{}\", super::c::text()) }");
    write("room/b.rs", "use super::a::A; pub struct B(A);");
    write("room/c.rs", "use crate::room::{B as Renamed}; pub fn text() -> Renamed { B::new() }");
    write("room/tests.rs", "use super::b::B;");
    let needs = needs(&modules::read(folder.path()));
    let start: ModulePath = vec!["room".to_owned(), "a".to_owned()];
    assert_eq!(shown(&circle(&needs, &start).unwrap()), "room/a → room/c → room/b → room/a");
    let front: ModulePath = vec!["room".to_owned()];
    assert_eq!(circle(&needs, &front), None, "a front page that only passes on needs nothing");
}
