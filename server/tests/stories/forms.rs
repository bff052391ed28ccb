//! Each rule of the chat by three kinds of client that share the conversations, as in `rows`: what one of them does, by topic or
//! by call, the others see; what is refused is told in every form; and at the end all have the same history.

mod bodies;
mod channels;
mod delivery;
mod groups;
mod limits;
mod marks;
mod people;
mod presence;
