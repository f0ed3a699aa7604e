//! Attacks on a whole house, named after what they try. Smaller ones stand beside the code they are about.

mod second_user;
mod strangers;
