"""Asks you, in the sandbox, by way of your terminal.

    caesarion run examples/quiz.py
"""

import getpass
import random

name = input("Your name? ")
a, b = random.randint(6, 9), random.randint(6, 9)
answer = input(f"{name}, what is {a} × {b}? ")
print("Right." if answer.strip() == str(a * b) else f"No, {a * b}.")
secret = getpass.getpass("A word that nobody shall see: ")
print(f"It has {len(secret)} letters.")
