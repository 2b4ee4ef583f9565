"""What a word is, and which words mean nothing by themselves."""

import re

WORD = re.compile(r"[^\W_]+(?:['’.\-][^\W_]+)*")
SHORT = 3  # letters; shorter words mean little
PLAIN = {  # words that mean little, and differ without meaning anything
    "the", "and", "for", "with", "from", "this", "that", "these", "those", "there", "then",
    "than", "are", "was", "were", "been", "have", "has", "had", "did", "does", "can", "could",
    "will", "would", "should", "may", "might", "you", "your", "our", "their", "its", "they",
    "them", "what", "which", "who", "how", "when", "where", "why", "please", "help", "just",
    "any", "some", "also", "into", "onto", "about", "but", "because", "although", "though",
    "while", "until", "even", "such", "too", "very", "really", "other", "another", "all",
    "i'm", "i'd", "i've", "i'll", "it's", "we're", "we've", "we'd", "they're", "that's",
}  # fmt: skip


def is_plain(word: str) -> bool:
    """Whether a word says nothing of what a text is about; a number always does."""
    folded = word.lower().replace("’", "'")
    return folded in PLAIN or (len(folded) < SHORT and not folded.isdigit())
