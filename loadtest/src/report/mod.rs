//! What becomes of runs: a text for the terminal, a page, plots, tables of several side by side.

pub(crate) mod quantity;
#[cfg(test)]
mod sample;
pub(crate) mod text;
mod words;
