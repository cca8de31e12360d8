"""Requests and answers of the OpenAI API: how a body is built, which part of an answer is a token.
It opens no connection.
"""
