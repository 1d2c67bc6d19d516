//! The live homes on real files: restarts, repetitions, claims.
