"""RTP over externalMedia: a pure core and a shell."""
