//! Histories that are broken on purpose: each rule refuses its own.

