//! Puts the seed's chance in the place of the machine's.

fn main() {
    println!("cargo::rerun-if-changed=src/chance.c");
    // Nobody names what is in it: what else refers to `getrandom` does so weakly, or by its name alone.
    let mut chance = cc::Build::new();
    chance.file("src/chance.c").std("c11");
    chance.link_lib_modifier("+whole-archive").compile("chance");
    println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol=getrandom");
}
