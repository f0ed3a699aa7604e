//! Animals that eat memory.

use std::time::Duration;

use crate::{Call, floor};

/// Taken at once.
const BITE: usize = 4 * 1024 * 1024;
/// What it stops at when nobody says otherwise.
const FULL: u64 = 64 * 1024 * 1024;

/// Takes memory and touches it, up to so many bytes, and goes on touching it.
pub(crate) fn hog(call: &Call) -> ! {
    let full = usize::try_from(call.number(FULL)).unwrap_or(BITE);
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    while eaten.len() * BITE < full {
        eaten.push(vec![0xa5; BITE]);
    }
    call.ready();
    loop {
        for bite in &mut eaten {
            for page in bite.chunks_mut(4096) {
                if let Some(byte) = page.first_mut() {
                    *byte = std::hint::black_box(byte.wrapping_add(1));
                }
            }
        }
        floor::moment(Duration::from_millis(50));
    }
}

/// The same in a child; the main process survives it and says how the child ended, with the code 0.
pub(crate) fn hog_child(call: &Call) -> ! {
    floor::child(|| hog(call));
    floor::wait(0);
    floor::write(1, b"the child is gone\n");
    floor::end(0)
}
