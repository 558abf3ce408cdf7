"""The commands of `samokoder` as they are typed, in files named after what they are about."""
