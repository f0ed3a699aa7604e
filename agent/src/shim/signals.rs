//! Signals by their number, real-time ones included. Owns one line of unsafe code, because the library that sends them
//! only makes signals of known names safely.

#![expect(unsafe_code, reason = "there is no safe way to name a real-time signal")]

use rustix::process::Signal;

/// The signal of that number; none for 0 and for numbers that are no signals.
pub(super) fn numbered(number: u32) -> Option<Signal> {
    let number = i32::try_from(number).ok().filter(|number| (1..=64).contains(number))?;
    // SAFETY: it is a valid number, and it is only ever sent to other processes: no handler or mask of this one, which
    // is what a libc keeps numbers for, is changed with it.
    Signal::from_named_raw(number).or_else(|| Some(unsafe { Signal::from_raw_unchecked(number) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_linux_has_its_number_and_nothing_else_has() {
        for number in 1..=64 {
            assert_eq!(numbered(number).map(|signal| signal.as_raw().cast_unsigned()), Some(number));
        }
        assert!(numbered(0).is_none() && numbered(65).is_none() && numbered(u32::MAX).is_none());
    }
}
