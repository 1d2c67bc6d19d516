//! Seeds: a random test prints how to run it again.

use std::hash::{BuildHasher, Hasher};

/// A generator whose seed is printed; `SEED=<number>` in the environment repeats a run.
pub struct Random {
    state: u64,
    /// What `SEED` must be to repeat this run.
    pub seed: u64,
}

/// A generator with a fresh seed, or the one of the environment.
pub fn random(test: &str) -> Random {
    let seed = match std::env::var("SEED") {
        Ok(text) => text.parse().expect("SEED is a whole number"),
        Err(_) => std::collections::hash_map::RandomState::new().build_hasher().finish(),
    };
    println!("{test}: SEED={seed}");
    Random::new(seed)
}

impl Random {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Random {
        Random { state: seed, seed }
    }

    /// The next number. Source: splitmix64 (Steele, Lea, Flood, 2014).
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}
