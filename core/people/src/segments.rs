//! The ranges of mobile numbers of mainland China, one bit for each prefix of four digits.
//!
//! Basic and virtual operators, and the data-card ranges 145, 147 and 149 whose cards take messages.
//! Left out: ranges of things (140, 141, 144, 146, 148), satellites (174) and ranges that were never
//! given to anyone. The regulator opens a range now and then; `[phone]` in the config adds or removes
//! prefixes without a new release.

/// Prefixes of three digits that people's mobile numbers have.
const MOBILE: [u16; 50] = [
    130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 145, 147, 149, 150, 151, 152, 153, 155, 156, 157, 158, 159, 162, 165, 166, 167, 170,
    171, 172, 173, 175, 176, 177, 178, 180, 181, 182, 183, 184, 185, 186, 187, 188, 189, 190, 191, 192, 193, 195, 196,
];
/// The last three, apart so that the table above stays within the line.
const MOBILE_LAST: [u16; 3] = [197, 198, 199];

const PREFIXES: usize = 10_000;

/// Which prefixes of four digits are a person's mobile number.
#[derive(Debug, Clone)]
pub(crate) struct Segments {
    bits: [u64; PREFIXES.div_ceil(64)],
}

impl Segments {
    /// The ranges as they are given out today.
    pub(crate) fn china() -> Self {
        let mut segments = Self { bits: [0; PREFIXES.div_ceil(64)] };
        for prefix in MOBILE.into_iter().chain(MOBILE_LAST) {
            segments.set(usize::from(prefix), 3, true);
        }
        segments
    }

    /// Allows or denies every number that begins with `prefix`, which has `digits` (1 to 4) digits.
    pub(crate) fn set(&mut self, prefix: usize, digits: u32, allowed: bool) {
        let width = 10_usize.pow(4 - digits);
        for four in prefix * width..(prefix + 1) * width {
            let bit = 1 << (four % 64);
            if allowed {
                self.bits[four / 64] |= bit;
            } else {
                self.bits[four / 64] &= !bit;
            }
        }
    }

    /// Whether a number of eleven digits lies in a range of people's mobile numbers.
    #[inline]
    pub(crate) fn allows(&self, eleven_digits: u64) -> bool {
        let four = (eleven_digits / 10_000_000) as usize;
        self.bits.get(four / 64).is_some_and(|word| word >> (four % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_people_are_allowed_and_others_are_not() {
        let segments = Segments::china();
        for yes in [13000000001, 13499999999, 14912345678, 17012345678, 19212345678, 19912345678] {
            assert!(segments.allows(yes), "{yes}");
        }
        for no in [12012345678, 14012345678, 14612345678, 15412345678, 16012345678, 17412345678, 17912345678, 19412345678, 11012345678] {
            assert!(!segments.allows(no), "{no}");
        }
    }

    #[test]
    fn a_prefix_can_be_opened_and_closed() {
        let mut segments = Segments::china();
        segments.set(1944, 4, true);
        segments.set(170, 3, false);
        assert!(segments.allows(19441234567) && !segments.allows(19451234567));
        assert!(!segments.allows(17012345678) && segments.allows(17112345678));
    }
}
