//! Running commands outlive the agent that started them, whichever version comes next: the new one adopts the shims of
//! the old one, and the old one those of the new one when an upgrade is rolled back.
//!
//! ```text
//! programs   the older and the newer program of the agent, installed by rename while commands run
//! crowd      a hundred commands that write numbered lines of random text, keep a copy, and end with codes of their own
//! upgrade    what is done to the agent meanwhile, and what must hold
//! ```
//! `PAPRIKA_OLD_AGENT` names a program of an older version (`scripts/adoption REV` builds one). Without it the older
//! program is another file with the present program, and a `NOT RUN:` line says so.

mod crowd;
mod programs;

mod upgrade;
