//! `larder advise`: on logs of the examples' APIs it proposes their tables.

mod world;
mod worlds;

#[test]
fn dump() {
    for (name, world) in [
        ("dashboard", worlds::dashboard()),
        ("shop", worlds::shop()),
        ("analysis", worlds::analysis()),
        ("journal", worlds::journal()),
    ] {
        std::fs::write(format!("/tmp/wt/adv-{name}.log"), world.log(7)).unwrap();
    }
}
