"""The intermediate representation: how every object moves."""
