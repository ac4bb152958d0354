//! One name, one idea: a type name that several rooms define is listed here.

use std::collections::{BTreeMap, BTreeSet};

use super::modules;

/// Names that several rooms define, and that are always written with their room: `origin::Settings`.
const QUALIFIED: [&str; 1] = ["Settings"];

#[test]
fn no_two_rooms_define_a_type_of_the_same_name() {
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, module) in modules::read(&super::source()) {
        for name in module.types {
            rooms.entry(name).or_default().insert(path[0].clone());
        }
    }
    rooms.retain(|name, rooms| rooms.len() > 1 && !QUALIFIED.contains(&name.as_str()));
    let list: Vec<String> = rooms
        .into_iter()
        .map(|(name, rooms)| format!("{name}: {}", Vec::from_iter(rooms).join(", ")))
        .collect();
    assert!(list.is_empty(), "several rooms define these types:\n{}", list.join("\n"));
}
